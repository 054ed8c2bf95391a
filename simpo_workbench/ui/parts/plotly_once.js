// plotly's own widget code, five megabytes, is sent and evaluated once for all figures of a page instead of once for each: anywidget gives a model two seconds to begin.
async function load(model) {
  const library = await model.widget_manager.get_model(model.get("library").replace("IPY_MODEL_", ""));
  const name = `simpoWorkbenchPlotly ${library.get("version")}`;
  globalThis[name] ??= import(URL.createObjectURL(new Blob([library.get("code")], { type: "text/javascript" })));
  try {
    return (await globalThis[name]).default;
  } catch (error) {
    globalThis[name] = undefined; // the next figure tries again
    throw error;
  }
}

export default () => {
  let figure;
  return {
    async initialize(context) {
      const widget = await load(context.model);
      figure = typeof widget === "function" ? await widget() : widget;
      return figure.initialize?.(context);
    },
    render: (context) => figure.render(context),
  };
};
