// The controls of the form. The kernel describes them, reads what is typed and sends the remarks; here are only inputs, labels and texts (never HTML).
const WHILE_TYPING_MS = 400;
const WHILE_SLIDING_MS = 60;

function make(tag, classes = "", text = "") {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}

function fit(area) {
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight + 2, 240)}px`;
}

function render({ model, el }) {
  el.classList.add("swb-fields");
  const view = Math.random().toString(36).slice(2); // two views of one form need identities of their own
  const controls = new Map();
  const waiting = new Map(); // path → value that is typed and not sent
  const sent = new Map(); // path → value and number of the message that the kernel has not answered
  let timer = null;
  let number = 0;

  function send() {
    clearTimeout(timer);
    if (!waiting.size) return;
    number += 1;
    for (const [path, value] of waiting) sent.set(path, { value, number });
    model.send({ typed: Object.fromEntries(waiting), number, view }); // not all values: a busy kernel may be about to change the others
    waiting.clear();
  }

  function heard(message) {
    if (message.view !== view) return;
    for (const [path, one] of sent) if (one.number <= message.heard) sent.delete(path);
    show_values();
  }

  function say(path, value, after_ms) {
    const known = sent.has(path) ? sent.get(path).value : model.get("values")[path];
    if (known === value) waiting.delete(path);
    else waiting.set(path, value);
    clearTimeout(timer);
    if (after_ms) timer = setTimeout(send, after_ms);
    else send();
  }

  function control(field) {
    const { path, kind } = field;
    if (kind === "choice") {
      const made = make("select");
      for (const choice of field.choices) made.append(new Option(choice, choice));
      made.addEventListener("change", () => say(path, made.value));
      return { main: made, set: (value) => (made.value = value) };
    }
    if (kind === "switch") {
      const made = make("input");
      made.type = "checkbox";
      made.addEventListener("change", () => say(path, made.checked));
      return { main: made, set: (value) => (made.checked = value) };
    }
    const long = ["text", "lines", "yaml"].includes(kind);
    const made = make(long ? "textarea" : "input");
    made.spellcheck = false;
    made.autocomplete = "off";
    if (long) made.rows = 1;
    else made.type = "text";
    if (kind === "number" || kind === "slider") made.inputMode = "decimal";
    const words = kind === "number" && field.choices.length ? make("datalist") : null;
    if (words) {
      words.id = `swb-${view}-${path}-words`;
      words.append(...field.choices.map((choice) => new Option(choice, choice)));
      made.setAttribute("list", words.id);
    }
    made.addEventListener("input", () => {
      if (long) fit(made);
      say(path, made.value, WHILE_TYPING_MS);
    });
    made.addEventListener("change", () => say(path, made.value));
    made.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || (long && (kind !== "text" || event.shiftKey))) return;
      event.preventDefault(); // a line break in a name is a mistake; Shift+Enter makes one on purpose
      say(path, made.value);
    });
    const set = (value) => {
      if (made.value !== value) made.value = value;
      if (long) requestAnimationFrame(() => fit(made));
    };
    return { main: made, words, set };
  }

  function slider(field, number, label) {
    const { path, stops } = field;
    const made = make("input", "swb-slider");
    made.type = "range";
    made.min = 0;
    made.max = stops.length - 1;
    made.step = 1;
    made.title = number.main.title;
    made.setAttribute("aria-label", `${label}, slider from ${stops[0]} to ${stops.at(-1)}`);
    made.addEventListener("input", () => {
      number.main.value = String(stops[made.value]);
      made.setAttribute("aria-valuetext", number.main.value);
      say(path, number.main.value, WHILE_SLIDING_MS);
    });
    made.addEventListener("change", send);
    const follow = () => {
      const value = Number(number.main.value);
      if (number.main.value.trim() === "" || Number.isNaN(value)) return;
      const near = stops.reduce((best, stop, index) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? index : best), 0);
      if (Number(made.value) !== near) made.value = near;
      made.setAttribute("aria-valuetext", number.main.value);
    };
    number.main.addEventListener("input", follow);
    return { made, follow };
  }

  function draw_field(field) {
    const id = `swb-${view}-${field.path}`;
    const box = make("div", `swb-field swb-kind-${field.kind}`);
    box.dataset.path = field.path;
    const one = control(field);
    one.main.id = id;
    one.main.title = `${field.path}: ${field.help}`;
    one.main.setAttribute("aria-describedby", `${id}-help ${id}-remark`);
    const label = make("label", "swb-label", field.label);
    label.htmlFor = id;
    const changed = make("span", "swb-changed");
    const top = make("div", "swb-field-top");
    const line = make("div", "swb-control");
    if (field.kind === "switch") top.append(one.main);
    top.append(label);
    if (field.kind === "slider") {
      const { made, follow } = slider(field, one, field.label);
      const ends = make("div", "swb-ends");
      ends.append(make("span", "", String(field.stops[0])), make("span", "", String(field.stops.at(-1))));
      const track = make("div", "swb-track");
      track.append(made, ends);
      line.append(track);
      const set = one.set;
      one.set = (value) => {
        set(value);
        follow();
      };
    }
    if (field.kind !== "switch") line.append(one.main);
    if (one.words) line.append(one.words);
    if (field.unit) line.append(make("span", "swb-unit", field.unit));
    top.append(changed);
    const help = make("div", "swb-help");
    help.id = `${id}-help`;
    const remark = make("div", "swb-remark");
    remark.id = `${id}-remark`;
    box.append(top, ...(line.childNodes.length ? [line] : []), help, remark);
    controls.set(field.path, { ...one, field, box, changed, help, remark });
    return box;
  }

  function grid(fields) {
    const made = make("div", "swb-grid");
    made.append(...fields.map(draw_field));
    return made;
  }

  function draw_section(section, index) {
    const made = make("section");
    const heading = make("h3", "", section.title);
    heading.id = `swb-${view}-section-${index}`;
    heading.append(" ", make("span", "swb-sentence", section.sentence));
    made.setAttribute("aria-labelledby", heading.id);
    const rare = section.fields.filter((field) => field.rare);
    made.append(heading, grid(section.fields.filter((field) => !field.rare)));
    if (rare.length) {
      const folded = make("details", "swb-rare");
      folded.append(make("summary"), grid(rare));
      folded.addEventListener("toggle", () => folded.querySelectorAll("textarea").forEach(fit));
      made.append(folded);
    }
    return made;
  }

  function show_values() {
    const values = model.get("values");
    for (const [path, one] of controls) {
      if (!waiting.has(path) && !sent.has(path) && path in values) one.set(values[path]);
    }
  }

  function show_remarks() {
    const remarks = model.get("remarks");
    for (const [path, { main, field, box, changed, help, remark }] of controls) {
      const { changed: from = "", problem = "", warning = "", note = "" } = remarks[path] ?? {};
      box.classList.toggle("swb-is-changed", from !== "");
      box.classList.toggle("swb-is-wrong", problem !== "");
      changed.textContent = from;
      main.setAttribute("aria-invalid", String(problem !== ""));
      help.textContent = problem || field.help + (field.hint ? ` (${field.hint})` : "");
      remark.textContent = [note, warning].filter(Boolean).join(" ");
      remark.classList.toggle("swb-is-warning", warning !== "");
    }
    for (const folded of el.querySelectorAll("details.swb-rare")) {
      const inside = [...folded.querySelectorAll(".swb-field")].map((box) => controls.get(box.dataset.path));
      const count = inside.filter(({ field }) => remarks[field.path]?.changed).length;
      const names = inside.map(({ field }) => field.label.toLowerCase()).join(", ");
      folded.querySelector("summary").textContent = `Rarely changed: ${names}${count ? ` (${count} changed)` : ""}`;
      if (inside.some(({ field }) => remarks[field.path]?.problem)) folded.open = true;
    }
  }

  el.replaceChildren(...model.get("sections").map(draw_section));
  model.on("change:values", show_values);
  model.on("change:remarks", show_remarks);
  model.on("msg:custom", heard);
  show_values();
  show_remarks();
  let width = 0;
  const wider = new ResizeObserver(() => {
    if (el.clientWidth === width) return; // a height that `fit` has changed
    width = el.clientWidth;
    el.querySelectorAll("textarea").forEach(fit);
  });
  wider.observe(el);
  return () => {
    send();
    wider.disconnect();
    model.off("change:values", show_values);
    model.off("change:remarks", show_remarks);
    model.off("msg:custom", heard);
  };
}

export default { render };
