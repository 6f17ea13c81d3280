// The connection that live updates come through: the banner while it is lost, asking meanwhile, and the switch that pauses.
const stream = document.getElementById("stream");
const POLL = 5000;
// Whoever answers slowly is not asked again meanwhile.
const LONGEST_POLL = 30000;
const OPEN = "dialog[open], #opened:not([hidden])";
let polling = 0;
let asking = false;
let signedOut = false;
let outdated = false;
let lastNews = Date.now();

// What live.js looks at, too.
const paused = () => document.getElementById("live-switch")?.getAttribute("aria-pressed") === "false";
const asOf = () => new Date(lastNews).toLocaleTimeString("en", { hourCycle: "h23" });

function pulse() {
  const seconds = Math.round((Date.now() - lastNews) / 1000);
  if (signedOut) return ["broken", "Signed out"];
  if (paused()) return ["paused", "Paused"];
  if (polling) return ["broken", "Reconnecting"];
  return ["on", seconds < 2 ? "Live" : `Live, changed ${seconds} s ago`];
}

function showPulse() {
  const shown = document.getElementById("pulse");
  if (!shown) return;
  const [state, text] = pulse();
  shown.dataset.live = state;
  document.getElementById("pulse-text").textContent = text;
}

function warn(text) {
  document.getElementById("disconnected").hidden = false;
  document.getElementById("disconnected-text").textContent = text;
}

function hideBanner() {
  document.getElementById("disconnected").hidden = true;
}

const reconnecting = () => warn("Live updates paused, reconnecting. Meanwhile this page asks every 5 seconds.");

function broken() {
  if (polling || signedOut) return;
  reconnecting();
  polling = setInterval(poll, POLL);
}

function stopPolling() {
  clearInterval(polling);
  polling = 0;
}

function whole() {
  stopPolling();
  hideBanner();
  // In another tab. No form of this page would be taken any more, and it may be somebody else who signed in.
  if (signedOut) outdated = true;
  signedOut = false;
  if (outdated) loadAgain();
}

async function poll() {
  if (document.hidden || asking) return;
  const mine = polling;
  const url = `${document.documentElement.dataset.root}/studio/parts?topics=${encodeURIComponent(stream.dataset.topics)}`;
  asking = true;
  try {
    const response = await fetch(url, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(LONGEST_POLL) });
    const text = await response.text();
    // The stream is back, and may have brought what is newer than this.
    if (mine !== polling) return;
    if (response.status === 401) return endOfSession();
    if (!response.ok) return;
    reconnecting();
    await htmx.swap({ text, swap: "none", target: stream, sourceElement: stream });
  } catch {
    if (mine === polling) warn(`The service does not answer. What you see is as of ${asOf()}.`);
  } finally {
    asking = false;
  }
}

function endOfSession() {
  if (signedOut) return;
  stopPolling();
  signedOut = true;
  warn("You are signed out. Load the page again to sign in.");
}

function loadAgain() {
  // The panel loads the page again by itself when it closes.
  if (document.querySelector(OPEN)) document.body.dataset.over = "";
  else location.reload();
}

if (stream) {
  setInterval(showPulse, 1000);
  stream.addEventListener("htmx:sse:after:connection", whole);
  stream.addEventListener("htmx:sse:error", (event) => (event.detail.status === 401 ? endOfSession() : broken()));
  stream.addEventListener("htmx:sse:close", () => { if (!document.body.dataset.leaving) broken(); });
  stream.addEventListener("htmx:error", broken);
  stream.addEventListener("htmx:response:error", broken);
  stream.addEventListener("stale", (event) => warn(`${event.detail.data} What you see is as of ${asOf()}.`));
  stream.addEventListener("fresh", () => { if (!polling) hideBanner(); });
  // A dialog's own event does not bubble.
  document.addEventListener("close", () => { if (outdated) loadAgain(); }, true);
  window.addEventListener("pagehide", () => { document.body.dataset.leaving = ""; });
  document.getElementById("live-switch")?.addEventListener("click", (event) => {
    event.currentTarget.setAttribute("aria-pressed", String(paused()));
    showPulse();
  });
  document.addEventListener("htmx:after:swap", () => { if (!paused()) lastNews = Date.now(); });
}
