// HTML that passes on what is done to it: arrow keys, clicks on parts that have a name (data-name), and, where a tool
// is chosen, boxes and strokes that are drawn on a part that takes them (data-sketch). Points are shares of its sides.

const SVG = "http://www.w3.org/2000/svg";

function render({ model, el }) {
  const page = document.createElement("div");
  page.tabIndex = 0;
  page.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the arrows, to move from cell to cell
  page.setAttribute("role", "group");
  page.style.position = "relative";

  const draw = () => {
    page.innerHTML = model.get("html");
    page.setAttribute("aria-label", model.get("label"));
    for (const part of page.querySelectorAll("[data-sketch]")) {
      part.style.cursor = model.get("tool") ? "crosshair" : "";
      part.style.touchAction = model.get("tool") ? "none" : "";
    }
  };
  const tell = (what) => {
    model.set("told", { ...what, at: performance.now() });
    model.save_changes();
  };
  page.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    tell({ key: event.key.slice(5), far: event.shiftKey });
  });
  page.addEventListener("click", (event) => {
    const part = event.target.closest("[data-name]");
    if (part) tell({ name: part.dataset.name });
  });
  page.addEventListener("pointerdown", (event) => {
    const tool = model.get("tool");
    const part = event.target.closest("[data-sketch]");
    if (!tool || !part) return;
    event.preventDefault();
    const [from, all] = [page.getBoundingClientRect(), part.getBoundingClientRect()];
    const sheet = page.appendChild(document.createElementNS(SVG, "svg"));
    sheet.style.cssText = `position:absolute;pointer-events:none;left:${all.x - from.x}px;top:${all.y - from.y}px`;
    sheet.setAttribute("width", all.width);
    sheet.setAttribute("height", all.height);
    const line = sheet.appendChild(document.createElementNS(SVG, "polyline"));
    line.setAttribute("style", "fill:none;stroke:#CC79A7;stroke-linejoin:round;stroke-linecap:round");
    line.setAttribute("stroke-width", tool === "brush" ? model.get("brush") * all.width : 2);
    const points = [];
    const move = (moved) => {
      const at = [(moved.clientX - all.x) / all.width, (moved.clientY - all.y) / all.height];
      points.push(at.map((share) => Math.min(Math.max(share, 0), 1)));
      const [[left, top], [right, bottom]] = [points[0], points[points.length - 1]];
      const box = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]];
      const drawn = (tool === "box" ? box : points).map(([x, y]) => `${x * all.width},${y * all.height}`);
      line.setAttribute("points", drawn.join(" "));
    };
    const stop = (last) => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", stop);
      window.removeEventListener("pointercancel", stop);
      sheet.remove();
      if (last.type === "pointerup") tell({ tool, points: tool === "box" ? [points[0], points.at(-1)] : points });
    };
    move(event);
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", stop);
    window.addEventListener("pointercancel", stop);
  });
  model.on("change:html change:tool", draw);
  model.on("comm_live_update", () => {
    if (page.querySelector("[data-gone]")) return;
    const alert = document.createElement("p"); // the kernel is gone, and nothing that is done here reaches it
    alert.dataset.gone = "";
    alert.setAttribute("role", "alert");
    alert.textContent = model.get("gone");
    page.prepend(alert);
  });
  draw();
  el.append(page);
}

export default { render };
