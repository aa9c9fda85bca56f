"""torch's compiler is deferred until it is needed, and then is the real one."""

import subprocess
import sys


def run(code, warnings="error"):
    done = subprocess.run([sys.executable, "-W", warnings, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


STEP = """
import sys, torch
from iolaus.machine.compile import defer_compiler, load_compiler
def train(optimizer_class, **options):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)
    for _ in range(3):
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()]
"""
COMPARED = """
optimizers = [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop, torch.optim.NAdam]
"""


def test_optimizers_step_without_the_compiler_and_to_the_same_weights():
    code = STEP + COMPARED + (
        "defer_compiler()\n"
        "light = [train(o) for o in optimizers]\n"
        "print('sympy' in sys.modules, 'torch._inductor' in sys.modules)\n"
        "load_compiler()\n"
        "print(sys.modules['torch._dynamo'].__file__ is not None, torch._dynamo is sys.modules['torch._dynamo'])\n"
        "full = [train(o) for o in optimizers]\n"
        "print(all(torch.equal(a, b) for one, other in zip(light, full) for a, b in zip(one, other)))\n"
    )  # fmt: skip
    assert run(code) == ["False", "False", "True", "True", "True"]


def test_whoever_asks_for_more_gets_the_real_one():
    code = STEP + (
        "defer_compiler()\n"
        "import torch._dynamo.config\n"
        "torch._dynamo.reset()\n"
        "print(torch._dynamo.config.__name__, hasattr(torch._dynamo, 'optimize'), 'sympy' in sys.modules)\n"
    )
    # with a GPU torch 2.11's compiler imports a part of torch's own that is deprecated
    assert run(code, "ignore") == ["torch._dynamo.config", "True", "True"]


def test_a_compiler_that_is_loaded_already_stays():
    code = STEP + (
        "import torch._dynamo\n"
        "real = torch._dynamo\n"
        "defer_compiler()\n"
        "print(torch._dynamo is real, sys.modules['torch._dynamo'] is real)\n"
    )
    assert run(code) == ["True", "True"]
