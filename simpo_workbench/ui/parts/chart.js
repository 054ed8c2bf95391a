// Beside a figure: keeps it as wide as its place, and draws one reading line through all its small charts where the pointer is.
function render({ model, el }) {
  el.classList.add("swb-frame");
  let place, figure, tries, timer, overlay;

  const find = () => {
    place = el.closest(".swb-figure");
    const found = place?.querySelector(".js-plotly-plot");
    if (!found?._fullLayout) return false;
    if (found !== figure) {
      figure = found;
      if (model.get("reading_line")) {
        figure.on("plotly_hover", ({ points }) => read(points[0]));
        figure.on("plotly_unhover", forget);
      }
    }
    return true;
  };

  // a chart is drawn before it is put into the page, 700 pixels wide, and does not notice when its place gets its width
  const fit = () => {
    clearTimeout(timer);
    const width = find() ? place.clientWidth : 0;
    if (width && Math.abs(width - model.get("width")) > 8) {
      model.set("width", width);
      model.save_changes();
    }
    if (width && Math.abs(figure._fullLayout.width - width) > 2) {
      delete figure.layout.width; // one that was drawn while it was hidden keeps 700 pixels as if they were asked for
      window.dispatchEvent(new Event("resize"));
    }
    if (!width || Math.abs(figure._fullLayout.width - width) > 2) if (tries-- > 0) timer = setTimeout(fit, 150);
  };
  const fitAgain = () => {
    tries = 200;
    fit();
  };

  const forget = () => overlay?.remove();
  const nearest = (xs, wanted) => {
    let best = -1;
    for (let index = 0; index < xs.length; index += 1) if (best < 0 || Math.abs(xs[index] - wanted) < Math.abs(xs[best] - wanted)) best = index;
    return best;
  };

  function read(point) {
    forget();
    overlay = document.createElement("div");
    overlay.className = "swb-reading";
    overlay.setAttribute("aria-hidden", "true");
    const layout = figure._fullLayout;
    for (const name of layout._subplots.cartesian) {
      const { xaxis, yaxis } = layout._plots[name];
      const left = xaxis._offset + xaxis.l2p(point.x);
      if (left < xaxis._offset || left > xaxis._offset + xaxis._length) continue;
      const line = document.createElement("span");
      Object.assign(line.style, { left: `${left}px`, top: `${yaxis._offset}px`, height: `${yaxis._length}px` });
      overlay.append(line);
      if (xaxis === point.xaxis && yaxis === point.yaxis) continue; // it shows its own values
      const words = document.createElement("b");
      const values = figure._fullData.filter((trace) => trace.xaxis === xaxis._id && trace.yaxis === yaxis._id && trace.hoverinfo !== "skip");
      words.textContent = values
        .map((trace) => [trace, nearest(trace.x, point.x)])
        .filter(([trace, at]) => at >= 0 && typeof trace.y[at] === "number")
        .map(([trace, at]) => `${trace.name.replace(", training, smoothed", " (training)").replace(", held-out", " (held-out)")} ${trace.y[at].toPrecision(3).replace("-", "−")}`)
        .join(" · ");
      Object.assign(words.style, { left: `${xaxis._offset}px`, top: `${yaxis._offset + yaxis._length - 16}px`, maxWidth: `${xaxis._length}px` });
      overlay.append(words);
    }
    place.append(overlay);
  }

  const watch = new ResizeObserver(fitAgain);
  const begin = () => {
    place = el.closest(".swb-figure");
    if (!place) return setTimeout(begin, 100);
    watch.observe(place);
    return fitAgain();
  };
  begin();
  model.on("change:drawn", fitAgain);
  return () => {
    watch.disconnect();
    clearTimeout(timer);
    model.off("change:drawn", fitAgain);
  };
}

export default { render };
