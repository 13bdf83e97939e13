"""Attach and exec: streams, sockets, terminals."""

from docker.utils.socket import demux_adaptor, frames_iter


def raw(sock):
    return getattr(sock, '_sock', sock)


# attach: what is there, and what comes.
box = started('attach', 'echo first; echo bad >&2; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo second')
eventually('two lines', lambda: len(box.logs().split(b'\n')) == 3)
stream = box.attach(stream=True, logs=True)
got = next(stream) + next(stream)
equal(sorted(got.split(b'\n')), [b'', b'bad', b'first'])
parts = box.attach(stream=True, logs=True, demux=True)
equal(sorted([next(parts), next(parts)], key=str), sorted([(b'first\n', None), (None, b'bad\n')], key=str))
box.exec_run(['touch', '/tmp/go'])
equal(b''.join(stream), b'second\n')
equal(list(parts), [(b'second\n', None)])
equal(sorted(box.attach(logs=True, stream=False).split(b'\n')), [b'', b'bad', b'first', b'second'])

# A socket of one's own, both ways, with half-close.
box = client.containers.create('busybox', ['sh', '-c', 'cat; echo end'], network_mode='none', stdin_open=True)
sock = box.attach_socket(params={'stdin': 1, 'stdout': 1, 'stderr': 1, 'stream': 1})
box.start()
raw(sock).sendall(b'typed\n')
frames = frames_iter(sock, tty=False)
equal(next(frames), (1, b'typed\n'))
raw(sock).shutdown(socket.SHUT_WR)
equal(list(frames), [(1, b'end\n')])
equal(box.wait()['StatusCode'], 0)
sock.close()

# The first bytes of a quick container are not lost with the header (docker-py reads below its own buffer).
for turn in range(15):
    box = client.containers.create('busybox', ['echo', f'turn {turn}'], network_mode='none')
    sock = box.attach_socket(params={'stdout': 1, 'stderr': 1, 'stream': 1})
    box.start()
    equal(b''.join(data for _, data in frames_iter(sock, tty=False)), f'turn {turn}\n'.encode())
    sock.close()
    box.remove(force=True)

# exec_run in all its ways.
box = started('exec', environment={'OWN': 'env'})
equal(tuple(box.exec_run('echo hi')), (0, b'hi\n'))
equal(tuple(box.exec_run(['sh', '-c', 'echo $A $OWN; pwd; id -u; exit 5'], environment={'A': 'b'}, workdir='/tmp', user='nobody')),
      (5, b'b env\n/tmp\n65534\n'))
equal(tuple(box.exec_run(['sh', '-c', 'echo $A'], environment=['A=list'])), (0, b'list\n'))
equal(tuple(box.exec_run(['sh', '-c', 'echo o; sleep 0.05; echo e >&2'], demux=True)), (0, (b'o\n', b'e\n')))
equal(tuple(box.exec_run(['sh', '-c', 'echo o; echo e >&2'], stderr=False)), (0, b'o\n'))
equal(tuple(box.exec_run(['sh', '-c', 'echo o; echo e >&2'], stdout=False)), (0, b'e\n'))
code, stream = box.exec_run(['sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.02; done'], stream=True)
equal((code, b''.join(stream)), (None, b'1\n2\n3\n'))
code, stream = box.exec_run(['sh', '-c', 'echo o; sleep 0.05; echo e >&2'], stream=True, demux=True)
equal(list(stream), [(b'o\n', None), (None, b'e\n')])
code, sock = box.exec_run(['cat'], stdin=True, socket=True)
raw(sock).sendall(b'through a socket\n')
equal(next(frames_iter(sock, tty=False)), (1, b'through a socket\n'))
sock.close()
code, out = box.exec_run(['sh', '-c', 'tty; stty size'], tty=True)
assert code == 0 and out.startswith(b'/dev/pts/'), out
code, sock = box.exec_run(['sh'], stdin=True, socket=True, tty=True)
raw(sock).sendall(b'echo $((40+2)); exit 6\n')
seen = b''
while chunk := raw(sock).recv(100):
    seen += chunk
assert b'42\r\n' in seen, seen
sock.close()
# A frame of any size: nothing is lost, nothing comes twice.
code, out = box.exec_run(['sh', '-c', 'head -c 3000000 /dev/zero | tr "\\0" x'])
equal((code, len(out), set(out)), (0, 3000000, {ord('x')}))
for turn in range(15):
    equal(tuple(box.exec_run(['echo', str(turn)])), (0, f'{turn}\n'.encode()))
for program, status in [('absent', 127), ('/etc/passwd', 126)]:
    equal(box.exec_run([program]).exit_code, status)
assert box.exec_run("true", detach=True).exit_code in (None, 0)
equal(box.exec_run(['sh', '-c', 'grep CapEff /proc/self/status'], privileged=True).output.split()[1][-10:], box.exec_run(['sh', '-c', 'grep CapBnd /proc/self/status'], privileged=True).output.split()[1][-10:])

# The low-level calls.
made = api.exec_create('exec', ['sh', '-c', 'sleep 0.05; exit 9'], stdout=True, stderr=True)
info = api.exec_inspect(made['Id'])
equal((info['Running'], info['ExitCode'], info['ContainerID']), (False, None, box.id))
equal(info['ProcessConfig']['entrypoint'], 'sh')
equal(api.exec_start(made['Id'], detach=True), '')
eventually('it has ended', lambda: api.exec_inspect(made['Id'])['Running'] is False and api.exec_inspect(made['Id'])['ExitCode'] is not None)
equal(api.exec_inspect(made['Id'])['ExitCode'], 9)
with raises(APIError, 409):
    api.exec_start(made['Id'])
with raises(NotFound, 404, 'No such exec instance'):
    api.exec_inspect('0' * 64)
made = api.exec_create('exec', ['sh'], tty=True, stdin=True)
sock = api.exec_start(made['Id'], tty=True, socket=True)
api.exec_resize(made['Id'], height=11, width=33)
raw(sock).sendall(b'stty size; exit\n')
seen = b''
while chunk := raw(sock).recv(100):
    seen += chunk
assert b'11 33' in seen, seen
box.remove(force=True)

# A terminal's attach is raw; its size is set from outside.
box = client.containers.create('busybox', ['sh'], network_mode='none', tty=True, stdin_open=True)
sock = box.attach_socket(params={'stdin': 1, 'stdout': 1, 'stream': 1})
box.start()
box.resize(12, 34)
raw(sock).sendall(b'stty size; exit 3\n')
seen = b''
while chunk := raw(sock).recv(100):
    seen += chunk
assert b'12 34' in seen, seen
equal(box.wait()['StatusCode'], 3)
