// Keys, the theme, times, copying, and dialogs for browsers without invoker commands.
const root = document.documentElement;
const home = `${root.dataset.root}/studio`;
const THEMES = ["system", "light", "dark"];

function setTheme(theme) {
  root.dataset.theme = theme;
  document.cookie = `overnight_theme=${theme}; path=${home}; max-age=31536000; samesite=strict`;
  const chosen = document.querySelector(`input[name="theme"][value="${theme}"]`);
  if (chosen) chosen.checked = true;
}

document.addEventListener("change", (event) => {
  if (event.target.name === "theme") setTheme(event.target.value);
  if (event.target.id === "keys-switch") localStorage.setItem("overnight-keys", event.target.checked ? "on" : "off");
});

// How many rows are ticked; what can be done with them is shown by the style sheet.
function countChosen() {
  const chosen = document.querySelector("[data-chosen]");
  if (chosen) chosen.textContent = `${document.querySelectorAll(".pick input:checked").length} chosen`;
}

document.addEventListener("change", countChosen);
countChosen();

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    try {
      await navigator.clipboard.writeText(copy.dataset.copy);
      copy.dataset.done = "";
      announce("Copied");
      setTimeout(() => delete copy.dataset.done, 1200);
    } catch {
      announce("Copying is not allowed here");
    }
  }
  const button = event.target.closest("button[commandfor]");
  if (button && !("commandForElement" in button)) {
    const dialog = document.getElementById(button.getAttribute("commandfor"));
    if (button.getAttribute("command") === "show-modal") dialog.showModal();
    else dialog.close();
  }
});

function announce(text) {
  document.getElementById("announcer").textContent = text;
}

const rows = () => [...document.querySelectorAll("[data-rows] tbody tr")];

function move(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.contains(document.activeElement));
  const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
  next.querySelector("a").focus();
  next.scrollIntoView({ block: "nearest" });
}

const ACTIONS = {
  j: () => move(1),
  k: () => move(-1),
  x: () => document.activeElement.closest("tr")?.querySelector(".pick input")?.click(),
  r: () => document.getElementById("live-switch")?.click(),
  t: () => setTheme(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]),
  "/": () => document.querySelector("[data-filter]")?.focus(),
  "?": () => document.getElementById("shortcuts").showModal(),
};

let waiting = "";
let waitingUntil = 0;

function busy(event) {
  const typing = event.target.closest?.("input:not([type=radio], [type=checkbox]), select, textarea, [contenteditable]");
  const modified = event.ctrlKey || event.metaKey || event.altKey;
  return typing || modified || document.querySelector("dialog[open]") || localStorage.getItem("overnight-keys") === "off";
}

document.addEventListener("keydown", (event) => {
  if (busy(event)) return;
  const sequence = Date.now() < waitingUntil ? `${waiting} ${event.key}` : event.key;
  const link = document.querySelector(`a[data-key="${CSS.escape(sequence)}"]`);
  waiting = event.key === "g" ? "g" : "";
  waitingUntil = waiting ? Date.now() + 1000 : 0;
  if (link) link.click();
  else if (ACTIONS[event.key]) ACTIONS[event.key]();
  else return;
  event.preventDefault();
});

const keysSwitch = document.getElementById("keys-switch");
if (keysSwitch) keysSwitch.checked = localStorage.getItem("overnight-keys") !== "off";

// Times are shown in the zone of the browser.
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function distance(seconds) {
  const size = Math.abs(seconds);
  const [unit, length] = UNITS.find(([, each]) => size >= each) ?? UNITS[3];
  const text = `${Math.floor(size / length)} ${unit}`;
  return seconds > 0 ? `in ${text}` : `${text} ago`;
}

// As long as something has been going on, in the two greatest units.
function span(seconds) {
  if (seconds < 1) return "under 1 s";
  const place = UNITS.findIndex(([, each]) => seconds >= each);
  const [unit, length] = UNITS[place];
  const [smaller, part] = UNITS[place + 1] ?? [];
  const rest = smaller ? ` ${String(Math.floor((seconds % length) / part)).padStart(2, "0")} ${smaller}` : "";
  return `${Math.floor(seconds / length)} ${unit}${rest}`;
}

function refreshTimes(scope = document) {
  for (const time of scope.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const ahead = (at - Date.now()) / 1000;
    const text = "running" in time.dataset ? span(-ahead) : distance(ahead);
    if (time.textContent !== text) time.textContent = text;
    time.title = `${at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" })} (${at.toISOString().replace(".000", "")})`;
  }
}

refreshTimes();
setInterval(() => {
  if (!document.hidden) refreshTimes();
}, 1000);
document.addEventListener("htmx:after:swap", () => refreshTimes());
