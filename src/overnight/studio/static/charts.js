// Charts: lines on canvases that share a cursor, with a sentence and a table that say the same.
const SHOWN = 20;
const DAY = 86400;
const NAMES = { tokens_in: "tokens in", tokens_out: "tokens out" };
const COLOURS = { p50: "running", p95: "text" };
const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: "compact" });

function colour(figure, name) {
  const probe = document.createElement("span");
  probe.className = `series-${(COLOURS[name] || name).replace("_", "-")}`;
  probe.hidden = true;
  figure.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function begin(figure) {
  const places = [...figure.querySelectorAll("[data-plot]")].map((place) => {
    return { place, names: (place.dataset.plot || "done failed").split(" "), plot: null };
  });
  const columns = places.flatMap(({ names }) => names);
  const every = Number(figure.dataset.every || 2000);
  const least = Number(figure.dataset.least || 1);
  let data = null;

  function clock(time) {
    const at = new Date(time * 1000);
    const exact = data.length > DAY ? { weekday: "short" } : { second: "2-digit" };
    return at.toLocaleString("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...exact });
  }

  function options(place, names) {
    const axis = { stroke: colour(figure, "text"), grid: { stroke: colour(figure, "grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    return {
      width: place.clientWidth,
      height: 148,
      cursor: { y: false, sync: { key: figure.id } },
      legend: { show: false },
      scales: {
        x: { range: (_, first, last) => (data.length ? [data.end - data.length, data.end] : [Math.min(first, last - 60), last]) },
        y: { range: (_, __, most) => [0, Math.max(least, (most || 0) * 1.15)] },
      },
      axes: [{ ...axis, values: (_, times) => times.map(clock), space: 90, size: 28 }, { ...axis, values: (_, all) => all.map((each) => number.format(each)), size: 48 }],
      series: [{}, ...names.map((name, order) => {
        return { label: NAMES[name] || name, stroke: colour(figure, name), width: 2, dash: order ? [5, 4] : undefined, points: { show: false }, spanGaps: true };
      })],
    };
  }

  function draw() {
    if (data.times.length < 2) return;
    for (const each of places) {
      const series = [data.times, ...each.names.map((name) => data[name])];
      if (each.plot) {
        each.plot.setData(series);
        continue;
      }
      const made = (each.plot = new uPlot(options(each.place, each.names), series, each.place));
      const canvas = each.place.querySelector("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", each.place.dataset.label || "Requests a second");
      canvas.tabIndex = 0;
      canvas.addEventListener("keydown", (event) => step(event, each));
      new ResizeObserver(() => made === each.plot && made.setSize({ width: each.place.clientWidth, height: 148 })).observe(each.place);
    }
  }

  function step(event, { place, plot, names }) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const { times } = data;
    const at = Math.min(times.length - 1, Math.max(0, (plot.cursor.idx ?? times.length) + by));
    // Told to the other chart, too: the cursor is one.
    plot.setCursor({ left: plot.valToPos(times[at], "x"), top: 0 }, true, true);
    const words = names.map((name) => `${data[name][at] ?? "no"} ${NAMES[name] || name}`);
    document.getElementById("announcer").textContent = `${clock(times[at])}: ${words.join(", ")} ${place.dataset.unit || "a second"}`;
  }

  function fill() {
    const from = Math.max(0, data.times.length - SHOWN);
    const rows = data.times.slice(from).map((time, place) => {
      const row = document.createElement("tr");
      const values = [clock(time), ...columns.map((name) => data[name][from + place])];
      values.forEach((value, column) => {
        const cell = document.createElement("td");
        cell.textContent = value ?? "–";
        if (column) cell.className = "num";
        row.append(cell);
      });
      return row;
    });
    figure.querySelector("[data-table]").replaceChildren(...rows.reverse());
  }

  async function refresh() {
    if (!figure.isConnected || "once" in figure.dataset) clearInterval(timer);
    if (!figure.isConnected || document.hidden) return;
    try {
      const response = await fetch(figure.dataset.source);
      if (!response.ok) return;
      data = await response.json();
    } catch {
      // The page says already that the service does not answer; the chart keeps what it has.
      return;
    }
    const summary = figure.querySelector("[data-summary]");
    if (summary.textContent !== data.summary) summary.textContent = data.summary;
    draw();
    fill();
  }

  const timer = setInterval(refresh, every);
  refresh();
  function again() {
    for (const each of places) {
      each.plot?.destroy();
      each.plot = null;
    }
    refresh();
  }
  // A page that renews itself takes the lines away with what else it did not send.
  document.addEventListener("htmx:after:swap", () => places.some(({ place, plot }) => plot && !place.contains(plot.root)) && again());
  document.addEventListener("visibilitychange", refresh);
  new MutationObserver(again).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
}

document.querySelectorAll("figure[data-source]").forEach(begin);
