"""What a user would lose: a lesson in arithmetic with a wrong number in it.

Every number that notebook 02 states is worked out again, by the package.
"""

import re

import nbformat
import pytest
import torch
from notebook_files import FOLDER, clone_in, run_without_download

import simpo_workbench as wb
from simpo_workbench.engine.losses import dpo_loss

NOTEBOOK = FOLDER / "02_the_loss_by_hand.ipynb"
#: Cells that train; the others do the arithmetic whose numbers are stated.
TRAINING = ("prepare", "step_one", "check_by_hand", "step_two", "step_rest", "figure", "dpo_measured")
#: Numbers that are chosen and not computed.
GIVEN = {r"\beta^{\text{DPO}}": 0.1, r"\gamma/\beta": wb.preset("paper-llama3-instruct-v0.2").loss.gamma_beta_ratio}

#: A formula that ends in a number, such as $L_1 = 0.6931$, and the number. What stands left of it may hold an equals
#: sign of its own.
FORMULA = re.compile(r"\$([^$]+?)\s*=\s*(-?\d+\.\d+)\$")
DECIMAL = re.compile(r"-?\d+\.\d+")
BETA, RATIO = 2.0, 0.5
GAMMA = BETA * RATIO


def double(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def table(text, first_header):
    """{first cell: the other cells} of the Markdown table whose header begins so."""
    lines = text.splitlines()
    start = next(
        index for index, line in enumerate(lines) if line.startswith(f"| {first_header} |" if first_header else "| |")
    )
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        rows[first] = others
    return rows


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def pairs(text):
    """Tokens and sums of the two pairs as the notebook gives them: (2, 4) of chosen tokens, chosen sum, rejected
    tokens, rejected sum.
    """
    return torch.tensor([[float(cell) for cell in row] for row in table(text, "").values()], dtype=torch.float64)


def slopes(chosen, rejected, beta=BETA, ratio=RATIO, mean=False):
    """(losses, their derivatives by ℓ_w), by the package's loss and autograd; mean: derivatives of the batch's mean
    loss.
    """
    chosen = chosen.detach().clone().requires_grad_()
    losses = wb.simpo_loss(chosen, rejected.detach(), beta, ratio)
    (losses.mean() if mean else losses.sum()).backward()
    return losses.detach(), chosen.grad


def mistakes(given):
    """{row of the big table: ℓ_w, ℓ_l, γ/β} — every mistake as the averages that it feeds into the right loss."""
    chosen_tokens, chosen_sums, rejected_tokens, rejected_sums = given.T
    chosen, rejected = chosen_sums / chosen_tokens, rejected_sums / rejected_tokens
    prompt_tokens, prompt_sum = 20, -60.0
    return {
        "SimPO": (chosen, rejected, RATIO),
        "sums, not averages": (chosen_sums, rejected_sums, RATIO),
        "prompt scored as well": (
            (chosen_sums + prompt_sum) / (chosen_tokens + prompt_tokens),
            (rejected_sums + prompt_sum) / (rejected_tokens + prompt_tokens),
            RATIO,
        ),
        "padded length as divisor": (chosen_sums / 40, rejected_sums / 40, RATIO),
        "batch summed before the loss": (chosen.sum().expand(2), rejected.sum().expand(2), RATIO),
        "no γ": (chosen, rejected, 0.0),
        "γ given as γ/β": (chosen, rejected, GAMMA),
    }


def clamped(z):
    """(loss, slope by z) of −log(σ(z) + 1e-8), by autograd in fp64."""
    z = z.detach().clone().requires_grad_()
    losses = -torch.log(torch.sigmoid(z) + 1e-8)
    losses.sum().backward()
    return losses.detach(), z.grad


def expected_rows(given):
    """{row of the big table: its five numbers}: both losses, their mean, both pulls."""
    rows = {}
    for name, (chosen, rejected, ratio) in mistakes(given).items():
        losses, slope = slopes(chosen, rejected, ratio=ratio)
        rows[name] = [*losses.tolist(), losses.mean().item(), *(-slope).tolist()]
    chosen, rejected, _ = mistakes(given)["SimPO"]
    losses, slope = clamped(BETA * (chosen - rejected) - GAMMA)
    rows["log of a clamped sigmoid"] = [*losses.tolist(), losses.mean().item(), *(-BETA * slope).tolist()]
    return rows


def expected_formulas(given):
    """{left side of a stated formula, without spaces: its value}."""
    rows, wrong = expected_rows(given), mistakes(given)
    chosen, rejected, _ = wrong["SimPO"]
    margins = BETA * (chosen - rejected)
    losses, slope = slopes(chosen, rejected)
    _, batch_slope = slopes(chosen, rejected, mean=True)

    def z(name):
        chosen, rejected, ratio = wrong[name]
        return BETA * (chosen - rejected - ratio)

    hopeless = double(-20.0)
    exact = wb.simpo_loss(hopeless, torch.zeros(1, dtype=torch.float64), 1.0, 0.0)
    exact.sum().backward()
    clamped_loss, clamped_slope = clamped(double(-20.0))
    beside_80 = wb.simpo_loss(given[:, 1] / 80, given[:, 3] / 80, BETA, RATIO)
    dpo_sums, reference = (double(-12.0), double(-36.0)), (double(-14.0), double(-35.0))
    values = {}
    for pair in (0, 1):
        number = pair + 1
        values |= {
            rf"\ell_{{w,{number}}}": chosen[pair],
            rf"\ell_{{l,{number}}}": rejected[pair],
            f"m_{number}": margins[pair],
            f"z_{number}": margins[pair] - GAMMA,
            f"L_{number}": losses[pair],
            rf"\partial L_{number}/\partial \ell_{{w,{number}}}": slope[pair],
            rf"\partial L/\partial \ell_{{w,{number}}}": batch_slope[pair],
            rf"z^{{\text{{sum}}}}_{number}": z("sums, not averages")[pair],
            rf"z^{{\text{{prompt}}}}_{number}": z("prompt scored as well")[pair],
            rf"L^{{\text{{padded}}}}_{number}": rows["padded length as divisor"][pair],
        }
    values |= {
        "L": losses.mean(),
        r"L^{\text{sum}}": rows["sums, not averages"][2],
        r"L^{\text{prompt}}": rows["prompt scored as well"][2],
        r"L^{\text{padded to 80}}_1": beside_80[0],
        r"z^{\text{batch}}": z("batch summed before the loss")[0],
        r"\ell_{w,1} + \ell_{w,2}": chosen.sum(),
        r"\ell_{l,1} + \ell_{l,2}": rejected.sum(),
        r"L^{\text{batch}}": rows["batch summed before the loss"][2],
        r"\beta\,\sigma(-z^{\text{batch}})": rows["batch summed before the loss"][3],
        r"-\log\sigma(-20)": exact,
        r"-\sigma(20)": hopeless.grad,
        r"-\log(\sigma(-20) + 10^{-8})": clamped_loss,
        r"\partial/\partial z": clamped_slope,
        r"L^{\gamma=0}_1": rows["no γ"][0],
        r"L^{\gamma \text{ twice}}_1": rows["γ given as γ/β"][0],
        r"z^{\text{DPO}}": 0.1 * ((dpo_sums[0] - reference[0]) - (dpo_sums[1] - reference[1])),
        r"L^{\text{DPO}}": dpo_loss(*dpo_sums, *reference, beta=0.1),
        r"L^{\text{DPO}}_{\text{start}}": dpo_loss(*reference, *reference, beta=0.1),
    }
    return {name.replace(" ", ""): float(torch.as_tensor(value).detach()) for name, value in (values | GIVEN).items()}


def stated_formulas(text):
    return [(found.group(1).replace(" ", ""), found.group(2)) for found in FORMULA.finditer(text.replace("$$", ""))]


def complaints(text):
    """Sentences on every stated number that is not what the package says, that nobody checks, or that is gone; empty
    when all is well.
    """
    given, stated = pairs(text), stated_formulas(text)
    formulas = expected_formulas(given)
    found = [f"{left} is not stated." for left in formulas if left not in dict(stated)]
    found += [f"Nobody knows what {left} = {right} should be." for left, right in stated if left not in formulas]
    found += [
        f"{left} = {right}, but it is {formulas[left]:.6f}."
        for left, right in stated
        if left in formulas and not same(right, formulas[left])
    ]
    found += different("the table of mistakes", table(text, "what is computed"), expected_rows(given))
    found += different("the table of the falling reward", table(text, "model"), expected_models(table(text, "model")))
    unchecked = FORMULA.sub("", "\n".join(line for line in text.splitlines() if not line.startswith("|")))
    return found + [
        f"{number} stands in the prose, where nothing checks it: write it as a formula."
        for number in DECIMAL.findall(unchecked)
    ]


def expected_models(stated):
    """{model: ℓ_w, ℓ_l, chosen reward, margin, loss} for the two log-probabilities in each row."""
    expected = {}
    for name, (chosen, rejected, *_) in stated.items():
        losses, _ = slopes(double(float(chosen)), double(float(rejected)))
        expected[name] = [
            float(chosen),
            float(rejected),
            BETA * float(chosen),
            BETA * (float(chosen) - float(rejected)),
            losses.item(),
        ]
    return expected


def different(where, stated, expected):
    if set(stated) != set(expected):
        return [f"{where} has the rows {sorted(stated)}, expected {sorted(expected)}."]
    both = (
        (name, cell, value) for name, row in stated.items() for cell, value in zip(row, expected[name], strict=True)
    )
    return [f"{where}, {name}: {cell}, but it is {value:.6f}." for name, cell, value in both if not same(cell, value)]


def same(stated, value):
    """Whether a number, written with so many digits, is the value rounded to them."""
    digits = len(stated.partition(".")[2])
    return abs(float(stated) - value) <= 0.5 * 10.0**-digits + 1e-9


def numbers_in(text):
    """(start, end) of every stated number: in formulas, and in the cells of tables that hold nothing else."""
    found = [formula.span(2) for formula in FORMULA.finditer(text)]
    return found + [cell.span(1) for cell in re.finditer(r"(?<=\| )(-?\d+(?:\.\d+)?)(?= \|)", text)]


def one_off(number):
    """The number with its last digit changed by one."""
    return number[:-1] + str((int(number[-1]) + 1) % 10)


# --- the numbers


def test_every_number_that_the_notebook_states_is_what_the_package_computes(prose):
    assert complaints(prose) == []


def test_one_wrong_digit_anywhere_is_noticed(prose):
    spans = numbers_in(prose)
    assert len(spans) > 90
    silent = []
    for start, end in spans:
        changed = prose[:start] + one_off(prose[start:end]) + prose[end:]
        if not complaints(changed):
            silent.append(prose[max(0, start - 40) : end + 5])
    assert silent == []


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("$L_1 = 0.6931$", "log 2", "L_1 is not stated."),
        ("$L_1 = 0.6931$", "$L_1 = 0.6931$ and $L_7 = 0.1$", "Nobody knows what L_7 = 0.1 should be."),
        ("$L_1 = 0.6931$", "$L_1 = 0.6931$ or 69.31 %", "69.31 stands in the prose"),
        ("| no γ |", "| no gamma |", "the table of mistakes has the rows"),
    ],
)
def test_a_number_that_nothing_checks_is_noticed(prose, was, becomes, said):
    assert was in prose
    assert [sentence for sentence in complaints(prose.replace(was, becomes)) if said in sentence]


# --- the cells


def test_the_cells_compute_the_numbers_that_stand_above_them(prose, tmp_path, monkeypatch):
    """Read off what the cells print, so that prose and code cannot drift apart."""
    executed = run_without_download(clone_in(tmp_path), NOTEBOOK, tmp_path / "cache", monkeypatch)
    arithmetic = [cell for cell in executed.cells if cell.cell_type == "code" and cell.id not in TRAINING]
    outputs = [output for cell in arithmetic for output in cell.outputs]
    shown = "".join(output.text if output.output_type == "stream" else output.data["text/plain"] for output in outputs)
    computed = [float(number) for number in re.findall(r"-?\d+\.\d*", shown)]
    tables = [number for name in ("what is computed", "model") for row in table(prose, name).values() for number in row]
    stated = [number for left, number in stated_formulas(prose) if left not in GIVEN] + tables
    assert [number for number in stated if not any(same(number, value) for value in computed)] == []
