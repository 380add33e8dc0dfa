// The list of trials and the small tables above it: sorted by DataTables, filtered by what the charts show.
"use strict";
$$("table.sorts").forEach(table => new DataTable(table, {
  paging: false, searching: false, info: false, order: [], autoWidth: false, layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
}));

const bar = trial => trial.dice == null ? "–"
  : `<span class="bar" style="--c:var(--${COLOUR.get(trial.enc) ?? "other"});--p:${Math.round(100 * trial.dice)}%"></span>${fixed(trial.dice)}`;
const haystack = trial => [trial.id, trial.enc, trial.role, trial.status, trial.pool, trial.why, ...trial.set].join(" ");

// A column: its heading, what it sorts by, and its HTML. What is absent sorts last, downwards.
const column = (title, get, html, look = "") => ({
  title: escaped(title),
  className: look,
  data: null,
  type: look === "l" ? "string" : "num",
  orderSequence: look === "l" ? ["asc", "desc"] : ["desc", "asc"],
  render: (trial, kind) => kind === "display" ? html(trial) : kind === "filter" ? haystack(trial) : get(trial) ?? (look === "l" ? "" : -Infinity),
});
const settingColumn = (name, n) => {
  const text = TRIALS.some(trial => trial.set[n] != null && typeof trial.set[n] !== "number");
  return column(words(name), t => text ? setting(t.set[n]) : t.set[n], t => escaped(setting(t.set[n])), text ? "l" : "");
};
const COLUMNS = [
  column("Trial", t => t.id, t => `<a href="#trial-${encodeURIComponent(t.id)}">${escaped(t.id)}</a>`, "l"),
  column("Encoder", t => t.enc, t => keyOf(t.enc) + escaped(t.enc), "l"),
  column("Status", t => t.status, t => `<span class="st ${STATUSES.includes(t.status) ? t.status : ""}">${escaped(t.status)}</span>${t.role === "search" ? "" : ` <small>${escaped(t.role)}</small>`}`, "l"),
  column("Dice", t => t.dice, bar),
  ...DATA.settings.map(settingColumn),
  column("IoU", t => t.iou, t => fixed(t.iou)),
  column("Epochs", t => t.epochs, t => t.epochs ?? "–"),
  column("Params", t => t.params, t => t.params == null ? "–" : fixed(t.params, 2) + "M"),
  column("Time", t => t.slot_s, t => duration(t.slot_s)),
  column("USD", t => t.usd, t => fixed(t.usd, 3)),
];

const list = $("#list") && new DataTable("#list", {
  data: TRIALS,
  columns: COLUMNS,
  order: [[3, "desc"]],
  pageLength: 25,
  deferRender: true,
  autoWidth: false,
  layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: "paging" },
  language: { zeroRecords: "No trial is left: other filters show more." },
  createdRow: (row, trial) => row.addEventListener("click", event => { if (!event.target.closest("a")) openTrial(trial.id) }),
});
if (list) {
  list.search.fixed("shown", (text, trial) => visible(trial));
  list.on("draw", () => { $("#count").textContent = `${list.rows({ search: "applied" }).count()} of ${TRIALS.length} trials` });
  $("#q").addEventListener("input", event => list.search(event.target.value).draw());
  list.draw();
}

function refresh(except = []) {
  redraw(except);
  list?.draw();
  $$(".chips button").forEach(chip => chip.setAttribute("aria-pressed", chip.shown.has(chip.value)));
}

// Chips switch encoders and statuses on and off, everywhere at once.
function chips(hosts, names, shown, label) {
  for (const host of hosts) for (const name of names) {
    const chip = Object.assign(document.createElement("button"), { type: "button", value: name, innerHTML: label(name), shown });
    chip.setAttribute("aria-pressed", "true");
    chip.addEventListener("click", () => { shown.delete(name) || shown.add(name); refresh(["importance"]) });
    host.append(chip);
  }
}
const counted = (key, name) => `<small>${TRIALS.filter(trial => trial[key] === name).length}</small>`;
chips($$(".chips.encoders"), [...COLOUR.keys()], view.encoders, name => keyOf(name) + escaped(name) + counted("enc", name));
chips($$(".chips.statuses"), STATUSES.filter(name => TRIALS.some(trial => trial.status === name)), view.statuses,
  name => escaped(name) + counted("status", name));

// Buttons of which one is pressed: the cost on the axis, the curves of the search or of the finals.
function choice(attribute, key, chart) {
  const buttons = $$(`[data-${attribute}]`);
  buttons.forEach(button => button.addEventListener("click", () => {
    view[key] = button.dataset[attribute];
    buttons.forEach(other => other.setAttribute("aria-pressed", String(other === button)));
    if (charts[chart]) draw(chart);
  }));
}
choice("cost", "cost", "pareto");
choice("curves", "curves", "curves");
if (!TRIALS.some(trial => trial.role === "final")) $("[data-curves=final]")?.setAttribute("disabled", "");
