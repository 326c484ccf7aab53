"""The cache of compiled programs: explicit, own settings kept, read by the next process."""

import json
import os
import subprocess
import sys

import pytest

import dynmech as dm

SCRIPT = """
import json, sys
import jax
import dynmech as dm

folder = dm.enable_compilation_cache(*sys.argv[1:])
hits = [0]
def listen(name, **rest):
    hits[0] += name == "/jax/compilation_cache/cache_hits"
jax.monitoring.register_event_listener(listen)
assert jax.config.jax_logging_level == "NOTSET"
jax.jit(lambda x: (x[::-1] @ x.T)[jax.numpy.argsort(x[0])])(jax.numpy.ones((64, 64)))
print(json.dumps([str(folder), hits[0]]))
"""


def run(*path, **variables):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, path)],
        env=kept | variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "cpu_aot_loader" not in done.stderr, "JAX's own log, unless asked for"
    return json.loads(done.stdout)


def test_the_next_process_reads_what_one_compiled(tmp_path):
    first, again = (run(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    assert first[0] == again[0]
    assert first[0].startswith(str(tmp_path))
    assert os.stat(first[0]).st_mode & 0o077 == 0
    assert first[1] == 0
    assert again[1] > 0


def test_the_users_own_setting_is_kept(tmp_path):
    own = str(tmp_path / "own")
    assert run(JAX_COMPILATION_CACHE_DIR=own, XDG_CACHE_HOME=str(tmp_path))[0] == own
    named = str(tmp_path / "named")
    assert run(named, JAX_COMPILATION_CACHE_DIR=own)[0] == named


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", ""):
        with pytest.raises(dm.InvalidArgument, match="enable_compilation_cache"):
            dm.enable_compilation_cache(path)
