// Sits in every panel: tells the kernel which theme the page has, keeps JupyterLab's shortcuts away from keys that belong to the panel's controls, and makes all of them work by keyboard.
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

const CONTROLS = "button, input, select, textarea, summary, a[href], [tabindex='0']";
const isVisible = (one) => one.getClientRects().length > 0;
const isUsable = (one) => one.isConnected && !one.disabled && isVisible(one);

// What the widgets leave out: a fold that only a mouse opens, slider handles without a name, and toggle buttons that do not say which one is pressed.
function mend(panel) {
  for (const head of panel.querySelectorAll(".jupyter-widget-Collapse-header")) {
    head.setAttribute("aria-expanded", head.parentElement.classList.contains("jupyter-widget-Collapse-open"));
    if (head.tabIndex === 0) continue;
    head.tabIndex = 0;
    head.setAttribute("role", "button");
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      head.click();
    });
  }
  for (const handle of panel.querySelectorAll(".noUi-handle")) {
    const widget = handle.closest(".jupyter-widgets");
    handle.setAttribute("aria-label", widget.querySelector(".widget-label")?.textContent ?? "");
    handle.setAttribute("aria-valuetext", widget.querySelector(".widget-readout")?.textContent || handle.getAttribute("aria-valuenow"));
  }
  for (const made of panel.querySelectorAll(".widget-toggle-button")) made.setAttribute("aria-pressed", made.classList.contains("mod-active"));
}

// A control may be disabled, hidden or taken away by what it does: the focus then goes to a neighbour, not to the beginning of the page.
function keepFocus(panel) {
  let held = null;
  let around = [];
  panel.addEventListener("focusin", ({ target }) => {
    held = target;
    around = [];
    for (let one = target.parentElement; one && one !== panel.parentElement; one = one.parentElement) around.push(one);
  });
  panel.addEventListener("focusout", ({ target }) => {
    if (isUsable(target)) held = null; // it was left on purpose
  });

  function successor() {
    const menu = panel.querySelector(".swb-menu .mod-active");
    const own = around.filter((one) => one !== panel && one.classList.contains("swb"));
    if (menu && own.length && !own.some(isVisible)) return menu; // another panel was turned to, and not another page of this one
    for (const place of around.filter((one) => one.isConnected)) {
      const near = [...place.querySelectorAll(CONTROLS)].filter((one) => one.tabIndex === 0 && isUsable(one));
      const after = held.isConnected ? near.find((one) => held.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING) : near[0];
      if (near.length) return after ?? near.at(-1);
    }
    return null;
  }

  return () => {
    if (!held || isUsable(held)) return;
    const active = document.activeElement;
    if (active === document.body || active === held) successor()?.focus({ preventScroll: true });
    else held = null;
  };
}

// The outermost panel looks after the controls in it.
function attend(panel) {
  const handOn = keepFocus(panel);
  let asked = false;
  const look = () => {
    asked = false;
    mend(panel);
    handOn();
  };
  const ask = () => {
    if (!asked) requestAnimationFrame(look);
    asked = true;
  };
  const watch = new MutationObserver(ask);
  watch.observe(panel, { subtree: true, childList: true, attributes: true, attributeFilter: ["disabled", "style", "class"] });
  ask();
  return watch;
}

function render({ model, el }) {
  let attending = null;
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
      if (!attending && panel.isConnected && !panel.parentElement.closest(".swb")) attending = attend(panel);
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
  model.send({ views: 1 });
  return () => {
    watch.disconnect();
    attending?.disconnect();
    model.send({ views: -1 });
  };
}

export default { render };
