"""Rank tables that hccl_tools.py and merge_hccl.py write, with a fake hccn_tool, and their errors."""
import json
import os

import pytest

from utils.hccl_tools import hccl_tools, merge_hccl
from utils.hccl_tools.rank_table import TableError, check_table, new_table

TWO_CARDS = """{
    "version": "1.0",
    "server_count": "1",
    "server_list": [
        {
            "server_id": "10.0.0.1",
            "device": [
                {
                    "device_id": "0",
                    "device_ip": "192.1.0.6",
                    "rank_id": "0"
                },
                {
                    "device_id": "1",
                    "device_ip": "192.1.1.6",
                    "rank_id": "1"
                }
            ],
            "host_nic_ip": "reserve"
        }
    ],
    "status": "completed"
}
"""


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """An hccn.conf of 16 devices, and no hccn_tool on the path."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    path = tmp_path / "hccn.conf"
    path.write_text("".join(f"address_{i}=192.1.{i}.6\nnetmask_{i}=255.255.255.0\n" for i in range(16)))
    return path


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """tool(script): put an hccn_tool with this shell script on the path."""
    def install(script):
        (tmp_path / "bin").mkdir()
        path = tmp_path / "bin" / "hccn_tool"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.defpath}")

    return install


def written(folder, *flags):
    assert hccl_tools.main([*flags, "--server_ip=10.0.0.1", f"--output_dir={folder}"]) == 0
    return {path.name: path.read_text() for path in folder.glob("hccl_*")}


def test_table_from_the_tool(tool, tmp_path, conf):
    tool('[ "$1 $3 $4" = "-i -ip -g" ] && echo "ipaddr:192.1.$2.6" && echo netmask:255.255.255.0')
    conf.write_text("address_0=1.1.1.1\naddress_1=1.1.1.2\n")     # the tool takes precedence
    assert written(tmp_path, "--device_num", "[0,2)", f"--hccn_conf={conf}") == {"hccl_2p_01_10.0.0.1.json": TWO_CARDS}


def test_table_from_the_file(conf, tmp_path):
    assert written(tmp_path, "--device_num=[0,2)", f"--hccn_conf={conf}") == {"hccl_2p_01_10.0.0.1.json": TWO_CARDS}


def test_a_failing_tool_falls_back_to_the_file(tool, tmp_path, conf):
    tool("echo 'hccn_tool: no driver' >&2; exit 3")
    assert written(tmp_path, "--device_num=[0,2)", f"--hccn_conf={conf}") == {"hccl_2p_01_10.0.0.1.json": TWO_CARDS}


@pytest.mark.parametrize("flags, name, devices", [
    (["--device_num=[0,8)"], "hccl_8p_01234567_10.0.0.1.json", range(8)),
    ([], "hccl_8p_01234567_10.0.0.1.json", range(8)),
    (["--device_num=[0,16)"], "hccl_16p_0123456789101112131415_10.0.0.1.json", range(16)),
    (["--device_num=[4,8)"], "hccl_4p_4567_10.0.0.1.json", range(4, 8)),
    (["--device_num=[10,12]"], "hccl_3p_101112_10.0.0.1.json", range(10, 13)),
    (["--device_num=[1,3)", "--visible_devices=4,6,7,5"], "hccl_2p_67_10.0.0.1.json", [6, 7])])
def test_devices(conf, tmp_path, monkeypatch, flags, name, devices):
    monkeypatch.setenv("HCCN_CONF", str(conf))
    (made, text), = written(tmp_path, *flags).items()
    assert made == name
    server, = json.loads(text)["server_list"]
    assert server["device"] == [{"device_id": str(device), "device_ip": f"192.1.{device}.6", "rank_id": str(rank)}
                                for rank, device in enumerate(devices)]


@pytest.mark.parametrize("flags, expected", [
    (["--device_num=8"], "--device_num: expected [FIRST,END), such as [0,8), got '8'"),
    (["--device_num=[3,3)"], "--device_num: [3,3) is an empty range"),
    (["--device_num=[0,8)", "--visible_devices=0,1"], "--device_num: [0,8), but the number of visible devices is 2"),
    (["--visible_devices=0,1,1"], "--visible_devices: 1 is listed twice"),
    (["--visible_devices=0;1"], "--visible_devices: expected numbers such as 0,1,2,3, got '0;1'"),
    (["--device_num=[0,17)"], "device 16: no address from hccn_tool or in {conf} (address_16=...)"),
    (["--device_num=[0,99999999999)"], "--device_num: expected [FIRST,END), such as [0,8), got '[0,99999999999)'"),
    (["--device_num=[0,1)", "--visible_devices=\u0663"], "--visible_devices: expected numbers such as 0,1,2,3, got"),
    (["--server_ip=fe80::1%/../../x"], "server_id: expected an IP address, got 'fe80::1%/../../x'"),
    (["--hccn_conf=/dev/zero"], "device 0: hccn_tool reports no address (no such command), and /dev/zero: not a regular file"),
    (["--hccn_conf=/no/where"], "device 0: hccn_tool reports no address (no such command), and /no/where: No such file"),
    (["--server_ip=host-1"], "server_id: expected an IP address, got 'host-1'"),
    (["--output_dir=/no/where"], "/no/where/hccl_8p_01234567_10.0.0.1.json: cannot be written: No such file")])
def test_errors_are_one_line(conf, tmp_path, capsys, flags, expected):
    status = hccl_tools.main(["--server_ip=10.0.0.1", f"--hccn_conf={conf}", f"--output_dir={tmp_path}", *flags])
    lines = capsys.readouterr().err.splitlines()
    assert status == 2
    assert len(lines) == 1 and lines[0].startswith("hccl_tools.py: error: " + expected.format(conf=conf))
    assert not list(tmp_path.glob("*hccl_*"))


def test_a_duplicate_address_is_refused(conf, tmp_path, capsys):
    conf.write_text("address_0=192.1.0.6\naddress_1=192.1.0.6\n")
    flags = ["--device_num=[0,2)", "--server_ip=10.0.0.1", f"--hccn_conf={conf}", f"--output_dir={tmp_path}"]
    assert hccl_tools.main(flags) == 2
    assert "server 10.0.0.1: device 1: device_ip 192.1.0.6 is also that of server 10.0.0.1: device 0" in capsys.readouterr().err
    assert not list(tmp_path.glob("*hccl_*"))


def test_own_address(monkeypatch):
    monkeypatch.setattr(hccl_tools.socket, "gethostbyname", lambda name: "10.2.3.4")
    assert hccl_tools.own_address() == "10.2.3.4"
    monkeypatch.setattr(hccl_tools.socket, "gethostbyname", lambda name: "127.0.1.1")
    with pytest.raises(TableError, match="--server_ip is required"):
        hccl_tools.own_address()


# ------------------------------------------------------------------------------------------------ merging


def save(folder, name, *servers, **changes):
    (folder / name).write_text(json.dumps({**new_table(servers), **changes}))
    return str(folder / name)


def test_merge(tmp_path):
    tables = (save(tmp_path, "b.json", ("10.0.0.2", [(0, "192.2.0.6"), (1, "192.2.1.6")])),
              save(tmp_path, "a.json", ("10.0.0.1", [(4, "192.1.0.6")])))
    assert merge_hccl.main([*tables, f"--output_dir={tmp_path}"]) == 0
    assert json.loads((tmp_path / "hccl_2s_3p.json").read_text()) == {
        "version": "1.0", "server_count": "2", "server_list": [
            {"server_id": "10.0.0.2", "device": [
                {"device_id": "0", "device_ip": "192.2.0.6", "rank_id": "0"},
                {"device_id": "1", "device_ip": "192.2.1.6", "rank_id": "1"}], "host_nic_ip": "reserve"},
            {"server_id": "10.0.0.1", "device": [
                {"device_id": "4", "device_ip": "192.1.0.6", "rank_id": "2"}], "host_nic_ip": "reserve"}],
        "status": "completed"}


@pytest.mark.parametrize("second, expected", [
    (lambda folder: save(folder, "b.json", ("10.0.0.1", [(0, "192.2.0.6")])), "server_id: 10.0.0.1 is listed twice"),
    (lambda folder: save(folder, "b.json", ("10.0.0.2", [(0, "192.1.0.6")])),
     "server 10.0.0.2: device 0: device_ip 192.1.0.6 is also that of server 10.0.0.1: device 0"),
    (lambda folder: save(folder, "b.json", ("10.0.0.2", [(0, "192.2.0.6")]), status="initializing"),
     "{folder}/b.json: status: expected 'completed', got 'initializing'"),
    (lambda folder: save(folder, "b.json", ("10.0.0.2", [])), "{folder}/b.json: server 10.0.0.2: no device"),
    (lambda folder: str(folder / "c.json"), "{folder}/c.json: No such file or directory")])
def test_merge_errors(tmp_path, capsys, second, expected):
    first = save(tmp_path, "a.json", ("10.0.0.1", [(0, "192.1.0.6")]))
    assert merge_hccl.main([first, second(tmp_path), f"--output_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err == f"merge_hccl.py: error: {expected.format(folder=tmp_path)}\n"
    assert not list(tmp_path.glob("*hccl_*"))


@pytest.mark.parametrize("change, expected", [
    (lambda table: table["server_list"][0]["device"][1].update(rank_id="2"), "rank_id: expected 0 to 1 in this order, got 0, 2"),
    (lambda table: table["server_list"][0]["device"][1].update(device_id="0"), "server 10.0.0.1: device 0 is listed twice"),
    (lambda table: table["server_list"][0]["device"][1].update(device_id=1), "device_id: expected a number as a string, got 1"),
    (lambda table: table["server_list"][0]["device"][1].pop("device_ip"), "device 1: device_ip: expected an IP address, got None"),
    (lambda table: table["server_list"][0].update(server_id="fe80::1%/../x"), "expected an IP address, got 'fe80::1%/../x'"),
    (lambda table: table["server_list"][0].update(server_id="fe80::1%\nPATH=."), "server_id: expected an IP address, got"),
    (lambda table: table["server_list"][0]["device"][0].update(device_id="1\u0663"), "device_id: expected a number as a string"),
    (lambda table: table["server_list"][0]["device"][0].update(device_id="9" * 5000), "device_id: expected a number as a string"),
    (lambda table: table["server_list"][0]["device"][0].update(rank_id=[[1e999] * 99] * 99), "in this order, got [[inf, inf, "),
    (lambda table: table.update(server_count="2"), "server_count: '2', but server_list has 1"),
    (lambda table: table.pop("server_list"), "server_list: expected at least one server"),
    (lambda table: table.update(version="1.2"), "version: expected '1.0', got '1.2'")])
def test_check(change, expected):
    table = json.loads(TWO_CARDS)
    check_table(table)
    change(table)
    with pytest.raises(TableError) as caught:
        check_table(table)
    assert expected in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(("text", "expected"), [
    ("[" * 100_000, "nested too deeply"), ("9" * 5000, "Exceeds the limit"), ("1e999", "not a rank table: expected a JSON object"),
    (None, "larger than 8 MB")])
def test_hostile_files(tmp_path, capsys, text, expected):
    path = tmp_path / "table.json"
    with path.open("w") as file:
        file.write(text) if text else file.truncate(1 << 30)
    assert merge_hccl.main([str(path), f"--output_dir={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"merge_hccl.py: error: {path}: {expected}")


def test_runs_from_any_folder(run_command, conf, tmp_path, repo_dir):
    tools = repo_dir / "utils" / "hccl_tools"
    for server in (1, 2):
        conf.write_text(f"address_0=192.{server}.0.6\n")
        done = run_command(["python", tools / "hccl_tools.py", "--device_num=[0,1)", f"--server_ip=10.0.0.{server}",
                            f"--hccn_conf={conf}"], cwd=tmp_path)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", f"hccl_1p_0_10.0.0.{server}.json\n")
    done = run_command(["python", tools / "merge_hccl.py", *sorted(tmp_path.glob("hccl_1p_*"))], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hccl_2s_2p.json\n"), done.stderr
