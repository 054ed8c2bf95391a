"""A run folder with nothing but a configuration and a status: quick to make, and no model behind it."""

from simpo_workbench.base.files import read_json, write_json
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.runs.folder import new_run_folder
from simpo_workbench.runs.run import Run


def make_run(root, name="one", state="training", identity=None, config=None, **more):
    folder = new_run_folder(root, name, "stem")
    (config or RunConfig()).to_yaml(folder.config)
    write_json(
        folder.status,
        {"state": state, "step": 3, "total_steps": 10, "message": "", "owner": "worker", "process": identity, **more},
    )
    return Run(folder)


def set_state(run, state, **more):
    write_json(run.folder.status, {**read_json(run.folder.status), "state": state, **more})
