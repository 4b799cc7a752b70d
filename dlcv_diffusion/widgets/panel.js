/* The front end of every explorer: controls, what the kernel answered, and one line that says how things stand.

   model: title, caption, fields (the controls), values (by name), moved (counts what the reader did), compare;
   from the kernel: answered (the last of these that it took up), state, picture, beside, …, line, facts, code.
*/

const SLOW = 400; // milliseconds without an answer, after which that is said
const BETWEEN = 150; // milliseconds between two positions while playing
const GONE = "the kernel that drew this is gone: run this cell to move the sliders";
const WAITING = "waiting for the kernel: it runs another cell, or this one has to be run again";
let views = 0;

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child !== null));
  return node;
}

const nearest = (values, wanted) =>
  values.reduce((best, value, index) => (Math.abs(value - wanted) < Math.abs(values[best] - wanted) ? index : best), 0);

/* --- controls: each has `node`, shows a value with `show`, and tells `move(value)` -------------------------------- */

function rangeControl(field, id, move) {
  const { values, texts } = field, last = values.length - 1;
  const range = make("input", { type: "range", id, min: 0, max: last, step: 1, disabled: last === 0 });
  const lowest = Math.min(...values), highest = field.most ?? Math.max(...values);
  const typed = make("input", { type: "number", min: lowest, max: highest, step: field.whole ? 1 : "any" });
  typed.setAttribute("aria-label", `${field.label}, typed`);
  const text = value => { const index = values.indexOf(value); return index < 0 ? `${+value.toPrecision(6)}` : texts[index]; };
  const show = value => {
    range.value = nearest(values, value);
    range.setAttribute("aria-valuetext", text(value));
    const plain = +text(value); // a label may be words
    typed.value = Number.isNaN(plain) ? +value.toPrecision(6) : plain;
  };
  const go = index => { show(values[index]); move(values[index]); };
  range.addEventListener("input", () => {
    const value = values[+range.value];
    if (field.live) go(+range.value); else show(value);
  });
  range.addEventListener("change", () => field.live || move(values[+range.value]));
  const take = () => {
    let value = Math.min(highest, Math.max(lowest, +typed.value));
    if (typed.value === "" || Number.isNaN(value)) return show(field.current());
    if (field.whole) value = Math.round(value);
    if (!field.between) value = values[nearest(values, value)];
    show(value);
    if (value !== field.current()) move(value);
  };
  typed.addEventListener("change", take);
  typed.addEventListener("keydown", event => { if (event.key === "Enter") take(); });
  const extra = [];
  let timer = null, player = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    if (player) { player.textContent = "▶"; player.setAttribute("aria-label", `play ${field.label}`); }
  };
  if (field.play && last > 0) {
    player = make("button", { type: "button", title: "go through all positions" }, "▶");
    player.addEventListener("click", () => {
      if (timer) return stop();
      if (+range.value === last) go(0);
      player.textContent = "⏸";
      player.setAttribute("aria-label", `pause ${field.label}`);
      timer = setInterval(() => {
        if (!range.isConnected || +range.value === last) return stop();
        if (field.idle()) go(+range.value + 1);
      }, BETWEEN);
    });
    stop();
    extra.push(player);
  }
  if (field.random) {
    const dice = make("button", { type: "button", title: "any number" }, "random");
    dice.setAttribute("aria-label", `random ${field.label}`);
    dice.addEventListener("click", () => { const any = Math.floor(Math.random() * 10000); show(any); move(any); });
    extra.push(dice);
  }
  return { node: [range, typed, make("span", { className: "dlcv-buttons" }, ...extra)], show, stop };
}

function choiceControl(field, id, move) {
  const group = make("div", { className: "dlcv-choice", role: "radiogroup" });
  group.setAttribute("aria-label", field.label);
  const radios = field.values.map((value, index) => {
    const radio = make("input", { type: "radio", name: id, id: `${id}-${index}` });
    radio.addEventListener("change", () => radio.checked && move(value));
    group.append(make("span", {}, radio, make("label", { htmlFor: `${id}-${index}` }, field.texts[index])));
    return radio;
  });
  return { node: [group], show: value => radios.forEach((radio, index) => { radio.checked = field.values[index] === value; }) };
}

function selectControl(field, id, move) {
  const select = make("select", { id });
  let values = [];
  select.addEventListener("change", () => move(values[select.selectedIndex]));
  const fill = now => {
    values = now.values;
    select.replaceChildren(...now.texts.map(text => make("option", {}, text)));
  };
  fill(field);
  return { node: [select], fill, show: value => { select.selectedIndex = values.indexOf(value); } };
}

function textControl(field, id, move) {
  const input = make(field.kind === "area" ? "textarea" : "input", { id, rows: 2, spellcheck: false });
  if (field.hint) input.title = field.hint;
  input.addEventListener("input", () => move(input.value));
  const words = (field.insert ?? []).map(word => {
    const button = make("button", { type: "button", title: `put ${word} into the ${field.label}` }, word);
    button.addEventListener("click", () => { input.value = `${input.value.trimEnd()} ${word}`.trimStart(); move(input.value); });
    return button;
  });
  return {
    node: words.length ? [input, make("span", { className: "dlcv-words" }, "learnt words: ", ...words)] : [input],
    show: value => { if (input.value !== value) input.value = value; },
  };
}

function fileControl(field, id, move, model) {
  const input = make("input", { type: "file", id, accept: field.accept });
  input.addEventListener("change", async () => {
    const [file] = input.files;
    if (!file) return;
    const content = await file.arrayBuffer();
    input.value = ""; // or the same file again would be no change
    move(undefined, () => model.send({ do: "upload", name: file.name }, undefined, [content]));
  });
  return { node: [input], show: () => {} };
}

const KINDS = {
  range: rangeControl, choice: choiceControl, select: selectControl, text: textControl, area: textControl, file: fileControl,
};

/* --- the whole ------------------------------------------------------------------------------------------------------ */

function render({ model, el }) {
  const view = `dlcv-${++views}`, get = name => model.get(name);
  el.classList.add("dlcv-explorer");
  const keys = event => { // plain keys are the controls', not JupyterLab's; Ctrl-S and Shift-Enter are its own
    if (!el.contains(event.target)) return;
    const plain = !(event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter"));
    event.target.toggleAttribute("data-lm-suppress-shortcuts", plain);
  };
  window.addEventListener("keydown", keys, true);
  let clock = null, gone = false, slow = false;

  const sent = then => {
    model.set("moved", get("moved") + 1);
    model.save_changes();
    if (then) then();
  };
  const watchMove = () => { // a move in any view of this panel
    clearTimeout(clock);
    slow = false;
    clock = setTimeout(() => { slow = true; showState(); }, SLOW);
    showState();
  };
  const waiting = () => get("answered") < get("moved") || get("state") === "busy" || get("state") === "draft";

  const controls = new Map(), form = make("div", { className: "dlcv-fields", role: "group" });
  form.setAttribute("aria-label", get("title") || "controls");
  for (const spec of get("fields")) {
    const id = `${view}-${spec.name}`;
    const field = { ...spec, current: () => get("values")[spec.name], idle: () => !waiting() };
    const move = (value, then) => {
      if (value !== undefined) model.set("values", { ...get("values"), [spec.name]: value });
      sent(then);
    };
    const control = KINDS[spec.kind](field, id, move, model);
    const name = spec.kind === "choice" ? make("span", { className: "dlcv-label" }, spec.label)
      : make("label", { className: "dlcv-label", htmlFor: id }, spec.label);
    form.append(make("div", { className: `dlcv-field dlcv-${spec.kind}` }, name, ...control.node));
    controls.set(spec.name, control);
  }

  const button = (label, title, act) => {
    const made = make("button", { type: "button", title }, label);
    made.addEventListener("click", act);
    return made;
  };
  const still = () => controls.forEach(control => control.stop?.());
  const reset = button("reset", "back to where the controls stood first", () => {
    still();
    model.set("values", { ...get("start") });
    sent();
  });
  const stop = button("stop", "give up this drawing", () => { still(); model.send({ do: "stop" }); });
  const compare = button("compare", get("comparing"), () => { model.set("compare", !get("compare")); sent(); });
  const download = button("download PNG", "the picture, with the facts that made it", () => model.send({ do: "download", view }));
  const code = make("code", { tabIndex: 0 });
  const copy = button("copy the code", "Python that makes this picture again", async () => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(get("code"));
    } catch { // no permission, or no https
      getSelection().selectAllChildren(code);
      copied = document.execCommand("copy");
    }
    copy.textContent = copied ? "copied" : "selected: press Ctrl-C";
    setTimeout(() => { copy.textContent = "copy the code"; }, 1500);
  });
  const more = make("details", {}, make("summary", {}, "more"), make("div", {}, download, copy), make("pre", {}, code));
  const bar = make("div", { className: "dlcv-bar" }, reset, get("comparing") ? compare : null, more, stop);

  const figure = () => {
    const image = make("img", { alt: "" }), words = make("figcaption", {});
    return { image, words, node: make("figure", {}, image, words), bytes: null };
  };
  const now = figure(), beside = figure();
  const figures = make("div", { className: "dlcv-figures" }, beside.node, now.node);
  const area = make("div", { className: "dlcv-area" });
  const line = make("div", { className: "dlcv-line", role: "status" });
  const steps = make("div", { className: "dlcv-steps" }); // changes too often to be read out
  const facts = make("div", { className: "dlcv-facts" });
  const title = make("div", { className: "dlcv-title" });
  el.append(title, form, bar, figures, area, line, steps, facts);

  const forget = ({ image }) => image.src.startsWith("blob:") && URL.revokeObjectURL(image.src);
  const showPicture = (shown, bytes, alt, label, size) => {
    const { image, words, node } = shown;
    node.hidden = !(bytes && bytes.byteLength);
    if (node.hidden) return;
    if (bytes !== shown.bytes) { // a new value, not only new words
      const old = image.src;
      image.src = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
      if (old.startsWith("blob:")) image.decode().catch(() => {}).finally(() => URL.revokeObjectURL(old));
      shown.bytes = bytes;
    }
    image.alt = alt;
    [image.width, image.height] = size;
    words.textContent = label;
    words.hidden = !label;
  };
  const showPictures = () => {
    showPicture(now, get("picture"), get("alt"), get("compare") ? get("label") : "", get("size"));
    showPicture(beside, get("compare") ? get("beside") : null, get("beside_alt"), get("beside_label"), get("size"));
  };
  const showState = () => {
    const unheard = get("answered") < get("moved"), state = get("state");
    const busy = unheard || state === "busy" || state === "draft", wrong = state === "error" && !unheard;
    el.dataset.state = gone ? "gone" : unheard ? "waiting" : state;
    figures.setAttribute("aria-busy", busy && !gone);
    area.setAttribute("aria-busy", busy && !gone);
    if (!(busy && !gone) && document.activeElement === stop) reset.focus();
    stop.style.visibility = busy && !gone ? "visible" : "hidden";
    steps.textContent = busy && !gone ? get("steps") : "";
    line.setAttribute("role", wrong ? "alert" : "status");
    line.textContent = gone ? GONE : unheard && slow ? WAITING : get("line");
    compare.setAttribute("aria-pressed", get("compare"));
  };
  const showWords = () => {
    title.textContent = get("title");
    title.hidden = !get("title");
    facts.textContent = get("facts");
    code.textContent = get("code");
    more.hidden = !get("code");
    area.innerHTML = get("area"); // made by this package, in which words are escaped
    area.hidden = !get("area");
  };
  const showValues = () => {
    const values = get("values");
    controls.forEach((control, name) => control.show(values[name]));
  };
  const showFields = () => get("fields").forEach(spec => controls.get(spec.name).fill?.(spec));

  const on = (names, act) => names.split(" ").forEach(name => model.on(`change:${name}`, act));
  on("values", showValues);
  on("fields", () => { showFields(); showValues(); });
  on("picture beside compare label alt size", showPictures);
  on("title facts code area", showWords);
  on("answered state line steps compare", showState);
  on("moved", watchMove);
  const receive = (message, buffers) => {
    if (message.file === undefined || message.view !== view) return;
    const link = make("a", { href: URL.createObjectURL(new Blob([buffers[0]], { type: "image/png" })), download: message.file });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  model.on("msg:custom", receive);
  const kernel = model.widget_manager?.kernel; // JupyterLab's and Notebook's; others have none
  const heard = (_, status) => {
    if (!/restarting|terminating|dead/.test(status)) return;
    gone = true; // a new kernel knows nothing of this panel
    still();
    showState();
  };
  kernel?.statusChanged?.connect(heard);

  showWords();
  showValues();
  showPictures();
  showState();
  return () => { window.removeEventListener("keydown", keys, true); still(); kernel?.statusChanged?.disconnect(heard); [now, beside].forEach(forget); clearTimeout(clock); };
}

export default { render };
