// A part of a page that is refused leaves what it was to replace; the page says why.
document.addEventListener("htmx:response:error", (event) => {
  if (event.target.id === "stream") return;
  const banner = document.getElementById("disconnected");
  banner.hidden = false;
  document.getElementById("disconnected-text").textContent = `Not brought up to date: ${event.detail.ctx.text}`;
});
