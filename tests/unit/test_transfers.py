"""Transfers to and from a bucket whose connections are cut."""
import contextlib
import socket
import threading
import time

import pytest

from faster_rcnn.src.model_utils.cloud import fetching, object_storage


def test_the_first_error_ends_a_transfer():
    """Otherwise each of thousands of files would be retried for a minute."""
    begun = []

    def cut(name):
        begun.append(name)
        if name != "0":
            time.sleep(0.2)
        raise ConnectionResetError(name)

    with pytest.raises(ConnectionResetError):
        object_storage.side_by_side(cut, map(str, range(5000)))
    assert len(begun) < 2500        # a busy machine may notice the first error late


def test_dead_connections_give_a_one_line_error(monkeypatch, tmp_path, message):
    """Connections may be cut, or transfer nothing."""
    monkeypatch.setattr(object_storage, "ATTEMPTS", 2)
    monkeypatch.setattr(object_storage, "READ_S", 0.2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for cut in (True, False):
        opened = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            def serve(server=server, cut=cut, opened=opened):
                with contextlib.suppress(OSError):
                    while True:
                        opened.append(server.accept()[0])
                        if cut:
                            opened.pop().close()

            threading.Thread(target=serve, daemon=True).start()
            monkeypatch.setenv("S3_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            error = message(fetching.fetch, "s3://bucket/data", tmp_path / f"data {cut}", "data_url", "data_path")
            assert error.startswith("data_url: s3://bucket/data: "), error
