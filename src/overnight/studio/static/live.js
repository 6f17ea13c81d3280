// Live updates: what htmx's stream brings is put in place without disturbing whoever reads or selects.
const stream = document.getElementById("stream");
const banner = document.getElementById("disconnected");
const bannerText = document.getElementById("disconnected-text");
const POLL = 5000;
let polling = 0;
let paused = false;
let lastNews = Date.now();
let lastSaid = 0;
let told = "";
let underWay = false;
const held = new Map();

setInterval(showPulse, 1000);
function showPulse() {
  const pulse = stream && document.getElementById("pulse");
  if (!pulse) return;
  const seconds = Math.round((Date.now() - lastNews) / 1000);
  pulse.dataset.live = paused ? "paused" : polling ? "broken" : "on";
  document.getElementById("pulse-text").textContent = paused ? "Paused" : polling ? "Reconnecting" : seconds < 2 ? "Live" : `Live, changed ${seconds} s ago`;
}

const asOf = () => new Date(lastNews).toLocaleTimeString("en", { hourCycle: "h23" });

function warn(text) {
  banner.hidden = false;
  bannerText.textContent = text;
}

function broken() {
  if (polling || paused) return;
  warn("Live updates paused, reconnecting. Meanwhile this page asks every 5 seconds.");
  polling = setInterval(poll, POLL);
}

function whole() {
  banner.hidden = true;
  clearInterval(polling);
  polling = 0;
}

async function poll() {
  if (document.hidden) return;
  const url = `${document.documentElement.dataset.root}/studio/parts?topics=${encodeURIComponent(stream.dataset.topics)}`;
  try {
    const response = await fetch(url, { headers: { accept: "text/html" } });
    if (response.status === 401) return signedOut();
    if (!response.ok) return;
    await htmx.swap({ text: await response.text(), swap: "none", target: stream, sourceElement: stream });
  } catch {
    warn(`The service does not answer. What you see is as of ${asOf()}.`);
  }
}

function signedOut() {
  whole();
  paused = true;
  warn("You are signed out. Load the page again to sign in.");
}

if (stream) {
  stream.addEventListener("htmx:sse:after:connection", whole);
  stream.addEventListener("htmx:sse:error", (event) => (event.detail.status === 401 ? signedOut() : broken()));
  stream.addEventListener("htmx:sse:close", () => { if (!document.body.dataset.leaving) broken(); });
  stream.addEventListener("htmx:error", broken);
  stream.addEventListener("htmx:response:error", broken);
  stream.addEventListener("stale", (event) => warn(`${event.detail.data} What you see is as of ${asOf()}.`));
  stream.addEventListener("fresh", () => { if (!polling) banner.hidden = true; });
  window.addEventListener("pagehide", () => { document.body.dataset.leaving = ""; });
  document.getElementById("live-switch")?.addEventListener("click", (event) => {
    paused = !paused;
    event.currentTarget.setAttribute("aria-pressed", String(!paused));
    if (!paused) releaseHeld();
    showPulse();
  });
}

// A list whose order may change stays as it is while something in it is focused or selected.
function frozen(target) {
  const at = document.getSelection();
  const selected = at && !at.isCollapsed && target.contains(at.anchorNode);
  return paused || selected || (target.matches("#active, #events") && target.contains(document.activeElement));
}

document.addEventListener("htmx:before:swap", (event) => {
  const tasks = event.detail.tasks;
  for (let place = tasks.length - 1; place >= 0; place -= 1) {
    const { target } = tasks[place];
    if (!target) tasks.splice(place, 1);
    else if (frozen(target)) held.set(target.id, tasks.splice(place, 1)[0].fragment.firstElementChild?.outerHTML ?? "");
  }
});

function releaseHeld() {
  for (const [id, html] of [...held]) {
    const target = document.getElementById(id);
    if (target && frozen(target)) continue;
    held.delete(id);
    if (target && html) htmx.swap({ text: html, swap: "outerMorph", target, sourceElement: stream });
  }
}

document.addEventListener("focusout", () => setTimeout(releaseHeld));
document.addEventListener("selectionchange", () => { if (held.size && document.getSelection().isCollapsed) releaseHeld(); });

document.addEventListener("htmx:after:swap", () => {
  lastNews = Date.now();
  countNew();
  tellState();
});

function countNew() {
  const ids = document.getElementById("newest")?.value.split(" ") ?? [];
  const first = document.querySelector("table.batches tbody tr")?.id.slice(4);
  const button = document.getElementById("fresh");
  if (!button || !ids[0]) return;
  const count = first ? ids.indexOf(first) : ids.length;
  const text = count < 0 ? "More new batches" : `+${count} new`;
  button.hidden = count === 0;
  if (count !== 0 && button.textContent !== text) say(count < 0 ? text : `${count} new ${count === 1 ? "batch" : "batches"}`);
  button.textContent = text;
}

function tellState() {
  const state = stream && document.getElementById("batch-state");
  if (!state) return;
  if (document.title !== state.dataset.title) document.title = state.dataset.title;
  // Kept here and not in the page: a morph takes away attributes that the new part does not have.
  if (told && told !== state.dataset.state) say(state.dataset.state);
  told = state.dataset.state;
  const ended = "ended" in state.dataset;
  if (ended && underWay) renew();
  underWay = !ended;
}

// Files, failures and actions are another after the end. Whoever reads or types is not disturbed: what is the same stays.
async function renew() {
  if (document.querySelector("dialog[open], #opened:not([hidden])")) return (document.body.dataset.over = "");
  await htmx.ajax("GET", location.href, { target: "#main", select: "#main", swap: "outerMorph" });
  if (document.activeElement === document.body) document.querySelector("h1").focus();
}

function say(text) {
  if (Date.now() - lastSaid < 10000) return;
  lastSaid = Date.now();
  document.getElementById("announcer").textContent = text;
}

tellState();
