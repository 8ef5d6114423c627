"use strict";
charts.start(reportCharts);
questions.start();
if (data.live) live.start();
texts.apply();
