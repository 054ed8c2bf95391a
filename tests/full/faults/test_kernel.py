"""What a user would lose: a run of hours, because the notebook's kernel died, and nobody can find or stop it any
more.
"""

import os
import signal
import textwrap

import pytest
from jupyter_client.manager import KernelManager
from killing import wait_for

import simpo_workbench as wb


class Kernel:
    """A real Jupyter kernel that runs cells."""

    def __init__(self, folder):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, cell):
        """What a cell printed. An error in it is an AssertionError here."""
        printed = []

        def keep(message):
            if message["header"]["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        reply = self.client.execute_interactive(textwrap.dedent(cell), timeout=120, output_hook=keep)["content"]
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", []))
        return "".join(printed).strip()

    def kill(self):
        """SIGKILL, as the kernel's memory killer does it."""
        os.kill(self.manager.provisioner.process.pid, signal.SIGKILL)
        self.client.stop_channels()
        self.manager.cleanup_resources()

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def long_config(tiny_config, tmp_path):
    config = tiny_config.with_changes({"training.max_steps": 2000, "training.eval_every": 0, "training.save_every": 0})
    config.to_yaml(tmp_path / "config.yaml")
    return config


def test_a_run_outlives_its_kernel_and_a_new_one_sees_and_stops_it(long_config, tmp_path):
    first = Kernel(tmp_path)
    first.run("""
        import simpo_workbench as wb
        run = wb.start(wb.RunConfig.from_yaml("config.yaml"))
    """)
    run = wb.attach("tiny", long_config.run.root)
    wait_for(lambda: len(run.records) >= 5, "five records", run)
    first.kill()
    before = len(run.records)
    second = Kernel(tmp_path)
    try:
        seen = second.run(f"""
            import simpo_workbench as wb
            run = wb.attach("tiny", {long_config.run.root!r})
            states = wb.list_runs({long_config.run.root!r})
            print(run.status.state, states.iloc[0]["state"], len(run.records), len(run.metrics))
        """).split()
        assert seen[:2] == ["training", "training"]
        assert before <= int(seen[2]) <= int(seen[3])
        wait_for(lambda: len(run.records) > before + 3, "records after the kernel's death", run)
        assert second.run("print(run.stop().wait(120).text)").startswith("Stopped after step")
        assert second.run("print(run.wait(120).state, run.adapter.is_dir())") == "stopped True"
    finally:
        second.close()
    steps = [record["step"] for record in run.records if record["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))


def test_a_run_inside_a_kernel_is_never_signalled(tiny_config, tmp_path):
    """wb.train lives in the kernel: killing it would kill the user's notebook."""
    tiny_config.with_changes({"training.max_steps": 100_000, "training.eval_every": 0}).to_yaml(
        tmp_path / "config.yaml"
    )
    kernel = Kernel(tmp_path)
    try:
        kernel.client.execute('import simpo_workbench as wb; wb.train(wb.RunConfig.from_yaml("config.yaml"))')
        wait_for(lambda: (tmp_path / "runs" / "tiny" / "metrics.jsonl").exists(), "the run")
        run = wb.attach("tiny", tmp_path / "runs")
        wait_for(lambda: len(run.records) >= 3, "three records", run)
        os.kill(kernel.manager.provisioner.process.pid, signal.SIGSTOP)  # it cannot answer
        with pytest.raises(wb.WorkbenchError, match="lives inside another program .* and is never signalled"):
            run.stop(patience_s=0.5)
        with pytest.raises(wb.WorkbenchError, match="has no worker process that could be asked"):
            run.dump_stack()
        assert kernel.manager.provisioner.process.poll() is None
        os.kill(kernel.manager.provisioner.process.pid, signal.SIGCONT)
        wait_for(lambda: run.status.ended, "the end in order", run)
        assert run.status.state == "stopped"
    finally:
        kernel.close()
