// A request beside the list, or the newest results, that it was opened from, where there is room for it; elsewhere a link
// leads to its page.
const panel = document.getElementById("opened");
// The style sheet has the same width.
const wide = matchMedia("(min-width: 75rem)");
const line = () => panel.querySelector("[data-line]")?.dataset.line;
let opener = null;
let asked = 0;

async function show(href) {
  const mine = (asked += 1);
  try {
    const response = await fetch(`${href}&panel`, { headers: { accept: "text/html" } });
    if (!response.ok || response.redirected) throw new Error("no such part");
    const text = await response.text();
    if (mine === asked) put(text);
  } catch {
    // The page says what is wrong, or asks to sign in. An address that came with the page alone leads nowhere.
    if (mine === asked && opener) location.assign(href);
  }
}

// Not through htmx: its swaps count as live news, and rest while live updates are paused.
function put(text) {
  panel.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  panel.hidden = false;
  panel.scrollTop = 0;
  // A page that is loaded again has the request open again.
  history.replaceState(null, "", `#request-${line()}`);
  mark();
  document.querySelector("#requests tr[data-selected]")?.scrollIntoView({ block: "nearest" });
  document.getElementById("opened-title").focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
}

function mark() {
  for (const row of document.querySelectorAll("#requests tbody tr")) {
    const opened = !panel.hidden && row.id === `request-${line()}`;
    row.toggleAttribute("data-selected", opened);
    if (opened) row.querySelector("a").setAttribute("aria-current", "true");
    else row.querySelector("a").removeAttribute("aria-current");
  }
}

function close() {
  const back = document.querySelector("#requests tr[data-selected] a") ?? opener;
  asked += 1;
  panel.hidden = true;
  panel.replaceChildren();
  mark();
  history.replaceState(null, "", "#requests");
  back?.focus();
  // The batch ended meanwhile; that could wait until the request was read.
  if ("over" in document.body.dataset) location.reload();
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) close();
  const link = event.target.closest("#requests tbody a, #tail a, #opened a[rel]");
  const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
  if (!link || elsewhere || !wide.matches) return;
  event.preventDefault();
  if (!panel.contains(link)) opener = link;
  show(link.href);
});

// Before all other keys: at the first and the last request, j and k must not move through the list behind the panel.
window.addEventListener("keydown", (event) => {
  if (panel.hidden || document.querySelector("dialog[open]") || event.target.closest?.("input, select, textarea")) return;
  if (event.key === "Escape") close();
  if (/^[jk]$/.test(event.key) && !panel.querySelector(`[data-key="${event.key}"]`)) event.stopPropagation();
}, true);

// The list of a batch that runs comes after the page.
document.addEventListener("htmx:after:swap", mark);

const named = /^#request-(\d+)$/.exec(location.hash);
if (named && wide.matches) {
  const query = new URLSearchParams(location.search);
  query.set("line", named[1]);
  show(`${location.pathname}/requests/?${query}`);
}
