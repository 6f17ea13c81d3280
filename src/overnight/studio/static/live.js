// Live updates: what htmx's stream brings is put in place without disturbing whoever reads or selects.
const stream = document.getElementById("stream");
const OPEN = "dialog[open], #opened:not([hidden])";
let lastSaid = 0;
let told = "";
let underWay = false;
let renewing = false;
const held = new Map();

const paused = () => document.getElementById("live-switch")?.getAttribute("aria-pressed") === "false";

// A list whose order may change stays as it is while something in it is focused or selected.
function frozen(target) {
  const at = document.getSelection();
  const selected = at && !at.isCollapsed && target.contains(at.anchorNode);
  return paused() || selected || (target.matches("#active, #events") && target.contains(document.activeElement));
}

document.addEventListener("htmx:before:swap", (event) => {
  const tasks = event.detail.tasks;
  for (let place = tasks.length - 1; place >= 0; place -= 1) {
    const { target, fragment } = tasks[place];
    if (target && !frozen(target)) {
      forget(target);
      continue;
    }
    tasks.splice(place, 1);
    if (target) hold(target.id, fragment.firstElementChild?.outerHTML ?? "");
  }
});

// The newest is the last, so that what is released is in the order in which it came.
function hold(id, html) {
  held.delete(id);
  held.set(id, html);
}

// What was held of a place, or of one within it, is older than what comes there now.
function forget(target) {
  for (const id of held.keys()) if (target.contains(document.getElementById(id))) held.delete(id);
}

function releaseHeld() {
  const free = [...held].map(([id, html]) => [document.getElementById(id), id, html]).filter(([target]) => !target || !frozen(target));
  // All of them first: each is a swap itself, and makes what is held within its place forgotten.
  for (const [, id] of free) held.delete(id);
  for (const [, id, html] of free) {
    const target = document.getElementById(id);
    if (target && html) htmx.swap({ text: html, swap: "outerMorph", target, sourceElement: stream });
  }
}

document.addEventListener("focusout", () => setTimeout(releaseHeld));
document.addEventListener("selectionchange", () => { if (held.size) releaseHeld(); });
// Behind the switch itself, which connection.js turns.
document.addEventListener("click", (event) => { if (event.target.closest("#live-switch")) releaseHeld(); });

document.addEventListener("htmx:after:swap", () => {
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
  if (ended && (underWay || "over" in document.body.dataset)) renew();
  underWay = !ended;
}

// Files, failures and actions are another after the end. Whoever reads or types is not disturbed: what is the same stays.
async function renew() {
  // What cannot be now is due when a dialog or the panel closes, or with the next news.
  document.body.dataset.over = "";
  if (renewing || document.querySelector(OPEN)) return;
  renewing = true;
  try {
    const response = await fetch(location.href, { headers: { accept: "text/html" } });
    const text = await response.text();
    if (response.ok && !response.redirected && !document.querySelector(OPEN)) await replaceMain(text);
  } catch {
    // The banner says that the service does not answer.
  } finally {
    renewing = false;
  }
}

async function replaceMain(text) {
  delete document.body.dataset.over;
  const focused = document.activeElement !== document.body;
  const target = document.getElementById("main");
  await htmx.swap({ text, target, select: "#main", swap: "outerMorph", sourceElement: document.body });
  if (focused && document.activeElement === document.body) document.querySelector("h1").focus({ preventScroll: true });
}

document.addEventListener("close", () => { if ("over" in document.body.dataset) renew(); }, true);

function say(text) {
  if (Date.now() - lastSaid < 10000) return;
  lastSaid = Date.now();
  document.getElementById("announcer").textContent = text;
}

tellState();
