"use strict";
charts.start(reportCharts);
questions.start();
texts.apply();
