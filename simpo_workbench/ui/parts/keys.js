// Buttons with keys. What is pressed goes to the kernel with the number of what the page showed at that moment.
const UNSEEN_MS = 250; // what is pressed sooner after something new came was meant for what stood there before

function render({ model, el }) {
  el.classList.add("swb-keys");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", model.get("label"));
  const buttons = document.createElement("div");
  buttons.className = "swb-row swb-keys-buttons";
  const hint = document.createElement("div");
  hint.className = "swb-help swb-keys-hint";
  el.append(buttons, hint);
  el.tabIndex = -1;
  let since = performance.now();
  let inside = false; // where the user is: the focused text may be taken away by the next one

  const panel = () => el.closest(".swb");
  const isVisible = (one = el) => one.getClientRects().length > 0;

  function press(name) {
    if (performance.now() - since >= UNSEEN_MS) model.send({ press: name, number: model.get("number") });
  }

  function isTyped(target) {
    return target.isContentEditable || target.matches("input, select, textarea");
  }

  function keydown(event) {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
    if (!isVisible() || !panel()?.contains(target) || isTyped(target)) return;
    const action = model.get("actions").find((one) => one.keys.includes(event.key.toLowerCase()));
    if (!action || action.why_not) return;
    event.preventDefault();
    event.stopPropagation();
    press(action.name);
  }

  function sayWhere() {
    const own = panel();
    if (!own) return;
    if (!own.hasAttribute("tabindex")) own.tabIndex = -1; // a click anywhere in the panel brings the keys to it
    hint.textContent = own.contains(document.activeElement) ? "The keys work now." : "Click into this panel, or reach it with Tab, and the keys work.";
  }

  function isAt({ type, target }) {
    inside = Boolean(panel()?.contains(target));
    if (type === "focusin") later();
  }

  function draw() {
    const active = el.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    buttons.replaceChildren(
      ...model.get("actions").map(({ name, keys, text, why_not }) => {
        const made = document.createElement("button");
        made.type = "button";
        made.className = "jupyter-button swb-button";
        made.dataset.name = name;
        made.disabled = Boolean(why_not);
        made.title = why_not || `Key ${keys.join(" or ")}`;
        const key = document.createElement("kbd");
        key.textContent = keys[0];
        made.append(key, ` ${text}`);
        made.addEventListener("click", () => press(name));
        return made;
      }),
    );
    const again = [...buttons.children].find((one) => one.dataset.name === active);
    again?.focus({ preventScroll: true });
    const { activeElement, body } = document;
    if (inside && isVisible() && (activeElement === body || !isVisible(activeElement))) el.focus({ preventScroll: true });
    since = performance.now();
    sayWhere();
  }

  // A long page that gave way to a short one would leave the notebook scrolled to where nothing is.
  // Where the user is in the panel, the keys are at hand at once: what began the page is gone, and the next best control may be one that leaves it.
  const takeFocus = () => {
    inside ||= Boolean(panel()?.contains(document.activeElement)); // it may have been focused before this was drawn
    if (inside && isVisible() && !el.contains(document.activeElement)) el.focus({ preventScroll: true });
  };
  const lookAgain = () =>
    setTimeout(() => {
      panel()?.scrollIntoView({ block: "nearest" });
      takeFocus();
    }, 100);
  const later = () => requestAnimationFrame(sayWhere); // where the focus goes is known after it has left
  document.addEventListener("keydown", keydown);
  document.addEventListener("focusin", isAt);
  document.addEventListener("pointerdown", isAt);
  document.addEventListener("focusout", later);
  model.on("change:version", draw);
  model.on("change:page", lookAgain);
  draw();
  requestAnimationFrame(takeFocus);
  later();
  return () => {
    document.removeEventListener("keydown", keydown);
    document.removeEventListener("focusin", isAt);
    document.removeEventListener("pointerdown", isAt);
    document.removeEventListener("focusout", later);
    model.off("change:version", draw);
    model.off("change:page", lookAgain);
  };
}

export default { render };
