"use strict";
// The page of a run that goes on: how far it is and how fast, asked for again and again; the rest is as it was made.
const live = (() => {
  const byId = (name) => document.getElementById(`live-${name}`);

  function show() {
    const { total, answered, failed, scored, right, rate } = data.live;
    const done = answered + failed;
    byId("count").textContent = texts.text("live.count", { done: texts.count(done), total: texts.count(total) });
    byId("progress").value = done;
    const parts = [];
    if (rate) parts.push(texts.text("board.rate", { n: rate.toFixed(1) }), texts.text("board.left", { time: texts.duration((total - done) / rate) }));
    if (scored) parts.push(texts.text("live.right", { percent: (100 * right / scored).toFixed(1), n: texts.count(scored) }));
    if (failed) parts.push(texts.text("board.failed", { n: texts.count(failed) }));
    byId("says").textContent = parts.join(" · ");
  }

  // A reader who is in the middle of something is not torn out of it.
  const isBusy = () => document.querySelector("#rows .detail") !== null || document.activeElement?.closest("input, select, pre") != null;

  function end() {
    if (!isBusy()) location.reload();
    else byId("says").textContent = texts.text("live.ended");
  }

  function start() {
    byId("reload").addEventListener("click", () => location.reload());
    texts.onChange(show);
    poll(data.live.address, ({ pace, gpus, ...now }) => {
      Object.assign(data, { pace, gpus });
      Object.assign(data.live, now);
      if (!now.running) {
        end();
        return false;
      }
      show();
      document.querySelectorAll(".over-time .chart").forEach((one) => charts.draw(one, reportCharts));
    }, () => { byId("says").textContent = texts.text("live.lost"); });
  }

  return { start };
})();
