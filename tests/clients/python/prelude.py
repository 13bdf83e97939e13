"""What every script of this directory begins with: the clients, and words to say what is expected.

The test that runs a script gives the daemon's address in DOCKER_HOST and a directory for files in DEWAR_TEST_DIR.
"""

import contextlib
import io
import json
import os
import socket
import tarfile
import time

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import Healthcheck, LogConfig, Mount, Ulimit

HOST = os.environ['DOCKER_HOST']
DIR = os.environ['DEWAR_TEST_DIR']
client = docker.DockerClient(base_url=HOST)
api = client.api


def run(command, **options):
    """containers.run on busybox without a network."""
    options.setdefault('network_mode', 'none')
    return client.containers.run('busybox', command, **options)


def sh(script, **options):
    return run(['sh', '-c', script], **options)


def started(name, script='exec sleep 1000', **options):
    return sh(script, name=name, detach=True, **options)


def equal(left, right):
    assert left == right, f'\n  got      {str(left)[:2000]!r}\n  expected {str(right)[:2000]!r}'


@contextlib.contextmanager
def raises(kind, status=None, text=''):
    """The block must raise `kind`; an APIError with this status and with `text` in its explanation."""
    try:
        yield
    except kind as error:
        if status is not None:
            assert error.status_code == status, f'{error.status_code} for: {error}'
        assert text in str(error), f'{text!r} is not in: {error}'
    else:
        raise AssertionError(f'no {kind.__name__}')


def eventually(what, condition):
    end = time.time() + 20
    while not condition():
        assert time.time() < end, f'waited 20 s for: {what}'
        time.sleep(0.02)


def tar_of(**files):
    """A tar of regular files, as bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def untar(chunks):
    """Names to contents of a tar that came in pieces; None for what is no regular file."""
    with tarfile.open(fileobj=io.BytesIO(b''.join(chunks))) as tar:
        return {m.name: tar.extractfile(m).read() if m.isfile() else None for m in tar.getmembers()}
