// Sits in every panel: tells the kernel which theme the page has, and keeps JupyterLab's shortcuts away from keys that belong to the panel's controls.
function isDark() {
  const { body, documentElement: root } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.classList.contains("vscode-dark") || root.getAttribute("theme") === "dark") return true;
  const [red, green, blue] = (getComputedStyle(body).backgroundColor.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
  return red + green + blue < 3 * 110;
}

// JupyterLab takes arrow keys from everything that is no text field (sliders, rows, buttons) unless the focused element itself says no.
const leaveKeys = (event) => (event.target.dataset.lmSuppressShortcuts = "true");
// It also refuses every line break that is typed inside a cell, in text areas too.
const leaveLineBreaks = (event) => event.inputType === "insertLineBreak" && event.stopPropagation();

function render({ model, el }) {
  const tell = () => {
    const panel = el.closest(".swb");
    const theme = isDark() ? "dark" : "light";
    if (panel) {
      panel.dataset.lmSuppressShortcuts = "true";
      panel.addEventListener("focusin", leaveKeys);
      panel.addEventListener("beforeinput", leaveLineBreaks, true);
      panel.dataset.swbTheme = theme;
      panel.setAttribute("role", "region");
      panel.setAttribute("aria-label", model.get("label"));
    }
    if (model.get("theme") !== theme) {
      model.set("theme", theme);
      model.save_changes();
    }
  };
  el.classList.add("swb-frame");
  const watch = new MutationObserver(tell);
  watch.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  watch.observe(document.documentElement, { attributes: true, attributeFilter: ["theme", "class"] });
  requestAnimationFrame(tell);
  setTimeout(tell, 200); // the panel may be put into the page after its parts
  return () => watch.disconnect();
}

export default { render };
