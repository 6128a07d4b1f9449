"""Other people's networks as they come: five lines of Python, and one command line."""

import pytest
from wall import WALL, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("as_users_run_it"),
    pytest.mark.filterwarnings("default"),  # other people's libraries, too
]


@pytest.mark.parametrize("name", WALL)
def test_a_network_takes_five_lines_and_one_command(name, tmp_path):
    network = WALL[name]
    if network.missing:
        pytest.skip(f"needs {', '.join(network.missing)}: `make test-real` installs them")
    assert run(network, tmp_path).lines <= 5
