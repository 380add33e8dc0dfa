// One trial in a dialog with its own address (#trial-0042), and what starts the page.
"use strict";
const dialog = $("#trial");
let trialChart = null;

const facts = trial => [
  ["Dice", fixed(trial.dice)], ["IoU", fixed(trial.iou)], ["test Dice", fixed(trial.test)],
  ["best epoch", trial.best ?? "–"], ["epochs", `${trial.epochs ?? 0} of ${trial.budget ?? "–"}`],
  ["parameters", trial.params == null ? "–" : fixed(trial.params, 2) + "M"], ["time on a slot", duration(trial.slot_s)],
  ["cost", dollars(trial.usd)], ["pool", trial.pool || "–"], ["retries", trial.retries ?? 0], ["role", trial.role || "–"],
  ...DATA.settings.map((name, n) => [words(name), setting(trial.set[n])]),
];
const command = trial => `${DATA.command} --reproduce ${trial.id}`;

function trialHtml(trial) {
  const kv = facts(trial).map(([name, text]) => `<div><dt>${escaped(name)}</dt><dd>${escaped(text)}</dd></div>`).join("");
  return `<div class="thead"><h2 id="t-title">Trial ${escaped(trial.id)}</h2><span>${keyOf(trial.enc)}${escaped(trial.enc)}</span>
<span class="st ${STATUSES.includes(trial.status) ? trial.status : ""}">${escaped(trial.status)}${trial.why ? ": " + escaped(trial.why) : ""}</span><span class="sp"></span>
<button type="button" data-go="-1" aria-label="Previous trial">←</button><button type="button" data-go="1" aria-label="Next trial">→</button>
<button type="button" data-close>Close</button></div>
${trial.curve.length ? '<div class="chart" id="t-curve" style="height:220px"></div>' : ""}<dl class="kv">${kv}</dl>
${trial.trace ? `<pre tabindex="0">${escaped(trial.trace)}</pre>` : ""}${trial.role === "final" ? "" : `<pre tabindex="0">${escaped(command(trial))}</pre>`}`;
}

function trialCurve(trial) {
  trialChart?.dispose();
  trialChart = null;
  if (!trial.curve.length) return;
  const best = [...bestOfEach(SEARCHED).values()].sort((a, b) => b.dice - a.dice)[0];
  const label = (text, color) => ({ show: true, formatter: () => text, color });
  const other = best && best !== trial && trial.role !== "final"
    ? [{ type: "line", symbol: "none", data: points(best.curve), lineStyle: { color: ink.faint, width: 1 }, endLabel: label("best", ink.faint) }]
    : [];
  trialChart = echarts.init($("#t-curve"));
  trialChart.setOption({
    ...common(),
    grid: { left: 46, right: 64, top: 14, bottom: 40 },
    xAxis: axis({ type: "value", name: "epoch", min: 1, max: Math.max(2, trial.budget ?? trial.curve.length), minInterval: 1, splitLine: { show: false } }),
    yAxis: axis({ type: "value", min: 0, axisLabel: { formatter: tick } }),
    series: [...other, {
      type: "line", symbol: "circle", symbolSize: 4, data: points(trial.curve), itemStyle: { color: colourOf(trial.enc) },
      lineStyle: { width: 2 }, endLabel: label(trial.id, colourOf(trial.enc)),
    }],
  });
}

function show(id) {
  const trial = BY_ID.get(id);
  if (!trial) return;
  dialog.innerHTML = trialHtml(trial);
  if (!dialog.open) dialog.showModal();
  trialCurve(trial);
}
const inHash = () => location.hash.startsWith("#trial-") ? decodeURIComponent(location.hash.slice(7)) : null;
function route() {
  const id = inHash();
  if (id !== null) show(id);
  else if (dialog.open) dialog.close();
}
function walk(step) {
  const ids = list.rows({ search: "applied", order: "applied" }).data().toArray().map(trial => trial.id);
  openTrial(ids[ids.indexOf(inHash()) + step]);
}
dialog.addEventListener("close", () => {
  if (inHash() !== null) history.replaceState(null, "", location.pathname + location.search + "#trials");
});
dialog.addEventListener("click", event => {
  if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
  const go = event.target.closest("[data-go]");
  if (go) walk(+go.dataset.go);
});
addEventListener("hashchange", route);

function toggleOutlines() {
  $(".gal")?.classList.toggle("no-outlines", !$("#outlines").checked);
}
$("#outlines")?.addEventListener("change", toggleOutlines);

const KEYS = {
  ArrowRight: () => dialog.open && walk(1),
  ArrowLeft: () => dialog.open && walk(-1),
  o: () => { if ($("#outlines")) { $("#outlines").checked = !$("#outlines").checked; toggleOutlines() } },
  "/": event => { event.preventDefault(); $("#q")?.focus() },
};
addEventListener("keydown", event => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  KEYS[event.key]?.(event);
});

function repaint() {
  readColours();
  redraw();
  if (dialog.open && inHash() !== null) trialCurve(BY_ID.get(inHash()));
}
addEventListener("themechange", repaint);
readColours();
const near = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
  near.unobserve(entry.target);
  begin(entry.target.id);
  if (entry.target.id === "parallel") followBrush();
}), { rootMargin: "600px" });
Object.keys(CHARTS).filter(host).forEach(name => near.observe(host(name)));

// The height of the page changes when the list is filtered; a redraw then would wipe the brush. So: the width alone.
let width = $("main").clientWidth;
new ResizeObserver(() => {
  if ($("main").clientWidth === width) return;
  width = $("main").clientWidth;
  for (const name in charts) charts[name]?.resize();
  redraw();
  trialChart?.resize();
}).observe($("main"));
route();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
