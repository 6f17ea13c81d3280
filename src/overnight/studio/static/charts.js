// The throughput chart of a batch: lines on a canvas, with a sentence and a table that say the same.
const figure = document.getElementById("throughput");
const EVERY = 2000;
const SHOWN = 20;
let plot = null;

function clock(time) {
  return new Date(time * 1000).toLocaleTimeString();
}

function colour(name) {
  return getComputedStyle(probe(name)).color;
}

function probe(name) {
  const element = document.createElement("span");
  element.className = `series-${name}`;
  element.hidden = true;
  figure.append(element);
  setTimeout(() => element.remove());
  return element;
}

function options(width) {
  const axis = { stroke: colour("text"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return {
    width,
    height: 176,
    cursor: { y: false },
    legend: { show: false },
    scales: {
      x: { range: (_, first, last) => [Math.min(first, last - 60), last] },
      y: { range: (_, __, most) => [0, Math.max(1, most * 1.15)] },
    },
    axes: [{ ...axis, values: (_, times) => times.map(clock), space: 90 }, { ...axis, size: 44 }],
    series: [
      {},
      { label: "done a second", stroke: colour("done"), width: 2, points: { show: false } },
      { label: "failed a second", stroke: colour("failed"), width: 2, dash: [5, 4], points: { show: false } },
    ],
  };
}

function draw(data) {
  const place = figure.querySelector("[data-plot]");
  if (data.times.length < 2) return;
  const series = [data.times, data.done, data.failed];
  if (plot) {
    plot.setData(series);
  } else {
    plot = new uPlot(options(place.clientWidth), series, place);
    const canvas = place.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.tabIndex = 0;
    canvas.addEventListener("keydown", (event) => step(event));
    new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 176 })).observe(place);
  }
  place.querySelector("canvas").setAttribute("aria-label", data.summary);
  const summary = figure.querySelector("[data-summary]");
  if (summary.textContent !== data.summary) summary.textContent = data.summary;
  fill(data);
}

function step(event) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const [times, done, failed] = plot.data;
  const at = Math.min(times.length - 1, Math.max(0, (plot.cursor.idx ?? times.length) + by));
  plot.setCursor({ left: plot.valToPos(times[at], "x"), top: 0 });
  const when = clock(times[at]);
  document.getElementById("announcer").textContent = `${when}: ${done[at]} done, ${failed[at]} failed a second`;
}

function fill(data) {
  const body = figure.querySelector("[data-table]");
  const from = Math.max(0, data.times.length - SHOWN);
  const rows = data.times.slice(from).map((time, place) => {
    const row = document.createElement("tr");
    const values = [clock(time), data.done[from + place], data.failed[from + place]];
    values.forEach((value, column) => {
      const cell = document.createElement("td");
      cell.textContent = value;
      if (column) cell.className = "num";
      row.append(cell);
    });
    return row;
  });
  body.replaceChildren(...rows.reverse());
}

async function refresh() {
  if (document.hidden) return;
  try {
    const response = await fetch(figure.dataset.source);
    if (response.ok) draw(await response.json());
  } catch {
    // The page says already that the service does not answer; the chart keeps what it has.
  }
}

if (figure) {
  refresh();
  setInterval(refresh, EVERY);
  new MutationObserver(() => {
    plot?.destroy();
    plot = null;
    refresh();
  }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}
