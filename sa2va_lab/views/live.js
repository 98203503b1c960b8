// HTML that passes on what is done to it: arrow keys, and clicks on parts that have a name (data-name).

function render({ model, el }) {
  const page = document.createElement("div");
  page.tabIndex = 0;
  page.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the arrows, to move from cell to cell
  page.setAttribute("role", "group");

  const draw = () => {
    page.innerHTML = model.get("html");
    page.setAttribute("aria-label", model.get("label"));
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
  model.on("change:html", draw);
  draw();
  el.append(page);
}

export default { render };
