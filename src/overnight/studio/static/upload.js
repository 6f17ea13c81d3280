// Uploads with their real progress; the bytes go to the service as they are.
const drop = document.getElementById("drop");
const input = document.getElementById("upload");
const state = document.getElementById("upload-state");
const bar = document.getElementById("upload-bar");
const text = document.getElementById("upload-text");
const problem = document.getElementById("upload-error");
let running = null;

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB"];
  let value = bytes / 1000;
  while (value >= 999.95 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value.toFixed(1)} ${units[0]}`;
}

function fail(message) {
  state.hidden = true;
  problem.textContent = message;
  problem.hidden = false;
  running = null;
}

function show(sent, total) {
  bar.value = total ? (100 * sent) / total : 0;
  text.textContent = sent >= total ? "Checking…" : `${size(sent)} of ${size(total)}`;
}

function answer(request) {
  try {
    return JSON.parse(request.responseText);
  } catch {
    if (request.status === 401) return { error: "You are signed out. Load the page again to sign in, and repeat the upload." };
    return { error: `The upload failed (${request.status || "no answer"}). Try again.` };
  }
}

function upload(file) {
  if (running || "disabled" in drop.dataset) return;
  if (!file.size) return fail(`${file.name} is empty: it holds no request.`);
  problem.hidden = true;
  state.hidden = false;
  const request = new XMLHttpRequest();
  running = request;
  request.open("POST", `${drop.dataset.upload}?name=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("content-type", "application/octet-stream");
  request.setRequestHeader("x-csrf-token", document.querySelector('meta[name="csrf"]').content);
  request.upload.addEventListener("progress", (event) => show(event.loaded, event.total));
  request.addEventListener("load", () => {
    const told = answer(request);
    if (request.status === 201) location.assign(told.next);
    else fail(told.error);
  });
  request.addEventListener("error", () => fail("The connection broke off. Nothing was stored; try again."));
  request.addEventListener("abort", () => fail("Stopped. Nothing was stored."));
  show(0, file.size);
  request.send(file);
}

input?.addEventListener("change", () => {
  if (input.files.length) upload(input.files[0]);
  input.value = "";
});
document.getElementById("upload-stop")?.addEventListener("click", () => running?.abort());

for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.dataset.over = "";
  });
}
for (const name of ["dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    delete drop.dataset.over;
  });
}
drop.addEventListener("drop", (event) => {
  const files = [...event.dataTransfer.files];
  if (files.length === 1) upload(files[0]);
  else if (files.length) fail("One file at a time: each batch reads one.");
});
window.addEventListener("beforeunload", (event) => {
  if (running && running.readyState < 4) event.preventDefault();
});
