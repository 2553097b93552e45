from benchmarks.start_up import cpu_seconds, imported


def test_a_command_is_weighed_in_a_process_of_its_own():
    assert "rich" in imported("--version")
    assert not {"hydra-core", "torch"} & {*imported("--version")}
    assert 0 < cpu_seconds("--version") < 30
