// All settings of all trials at once; a range dragged on an axis is what the other charts and the list show.
"use strict";
const AXES = [
  ["encoder", trial => trial.enc],
  ...DATA.settings.map((name, n) => [words(name), trial => trial.set[n]]),
  ["epochs", trial => trial.epochs],
  ["Dice", trial => trial.dice],
];
const MOST_AXES = 11;

function axesFor(trials, narrow) {
  const differing = AXES.filter(([, get]) => new Set(trials.map(get)).size > 1);
  const few = differing.length ? differing : AXES.slice(-1);
  const most = narrow ? 5 : MOST_AXES;
  return few.length <= most ? few : [...few.slice(0, most - 2), ...few.slice(-2)];
}

function axisOf([name, get], dim, trials) {
  const values = trials.map(get).filter(value => value != null);
  const label = { color: ink.soft, fontSize: 11, textBorderColor: ink.card, textBorderWidth: 3 };
  if (values.length < trials.length || values.some(value => typeof value !== "number")) {
    const order = name === "encoder" ? [...COLOUR.keys()] : [...new Set(trials.map(t => setting(get(t))))].sort();
    return { dim, name, type: "category", data: order, axisLabel: { ...label, width: 76, overflow: "truncate" } };
  }
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const log = low > 0 && DATA.log.some(setting => words(setting) === name);
  return {
    dim, name, type: log ? "log" : "value", scale: true, min: low, max: high,
    axisLabel: { ...label, formatter: v => log ? v.toExponential(0) : String(+v.toPrecision(3)) },
  };
}

const value = (get, along) => trial => along.type === "category" ? String(get(trial) ?? "–") : get(trial);

CHARTS.parallel = chart => {
  const trials = SEARCHED.filter(trial => chosen(trial) && trial.dice != null && !trial.repeat);
  if (!SEARCHED.some(trial => trial.dice != null)) return "No trial has a score yet.";
  const narrow = chart.getWidth() < 560;
  const axes = axesFor(trials, narrow);
  const along = axes.map((one, dim) => axisOf(one, dim, trials));
  chart.trials = trials;
  const dice = trials.map(trial => trial.dice).sort((a, b) => a - b);
  chart.setOption({
    ...common(),
    visualMap: {
      show: false,
      dimension: axes.length - 1,
      min: dice[Math.floor(dice.length * 0.1)] ?? 0,
      max: dice.at(-1) ?? 1,
      inRange: {
        color: ink.dark ? ["#3a3f6b", "#4f6fa8", "#59a5a0", "#bcd267", "#fde725"]
          : ["#d8d5e8", "#a9b3d6", "#5f9bbf", "#277a86", "#0a3f4c"],
      },
    },
    parallel: {
      left: narrow ? 40 : 56, right: narrow ? 30 : 44, top: 38, bottom: 16, axisExpandable: false,
      parallelAxisDefault: {
        nameLocation: "end",
        nameGap: 14,
        nameTextStyle: { color: ink.ink, fontSize: 12 },
        nameTruncate: { maxWidth: narrow ? 62 : 92 },
        axisLine: { lineStyle: { color: ink.faint } },
        axisTick: { show: false },
        areaSelectStyle: { width: 14, color: ink.accent, opacity: 0.25, borderColor: ink.accent },
      },
    },
    parallelAxis: along,
    series: [{
      type: "parallel",
      smooth: 0.15,
      lineStyle: { width: 1.1, opacity: 0.5 },
      inactiveOpacity: 0.04,
      activeOpacity: 0.8,
      progressive: 0,
      data: trials.map(trial => axes.map(([, get], n) => value(get, along[n])(trial))),
    }],
  }, { notMerge: true });
};

function followBrush() {
  const chart = charts.parallel;
  if (!chart) return;
  chart.on("axisareaselected", () => {
    const active = chart.getModel().getSeries()[0].getRawIndicesByActiveState("active");
    const all = active.length === chart.trials.length;
    view.brushed = all ? null : new Set(active.map(n => chart.trials[n].id));
    refresh(["parallel", "importance"]);
  });
}
$("#unbrush")?.addEventListener("click", () => { view.brushed = null; refresh(["importance"]) });
