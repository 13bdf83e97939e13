"""Logs: whole, followed, from and until, with times; of terminals too."""

box = started('talker', 'for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done; sleep 0.01')
box.wait()
lines = lambda data: data.decode().split('\n')[:-1]
equal(sorted(lines(box.logs())), sorted([f'{s}{i}' for s in 'oe' for i in range(1, 6)]))
equal(box.logs(stderr=False), b'o1\no2\no3\no4\no5\n')
equal(box.logs(stdout=False), b'e1\ne2\ne3\ne4\ne5\n')
# The last lines of both streams together, then those asked for.
equal(len(lines(box.logs(tail=2))), 2)
equal(len(lines(box.logs(tail='all'))), 10)
equal(box.logs(tail=0), b'')
stamped = lines(box.logs(stderr=False, timestamps=True))
assert all(line[4] == '-' and line[19] == '.' and line.split(' ')[1].startswith('o') for line in stamped), stamped
equal(b''.join(box.logs(stream=True, stderr=False)), b'o1\no2\no3\no4\no5\n')
equal(b''.join(box.logs(stream=True, follow=False, stdout=False)), b'e1\ne2\ne3\ne4\ne5\n')
equal(box.logs(since=int(time.time()) + 100), b'')
equal(len(lines(box.logs(since=int(time.time()) - 100))), 10)
equal(len(lines(box.logs(since=time.time() - 100.5))), 10)
equal(box.logs(until=int(time.time()) - 100), b'')
equal(len(lines(box.logs(until=int(time.time()) + 100))), 10)
import datetime
equal(len(lines(box.logs(since=datetime.datetime.utcnow() - datetime.timedelta(hours=1)))), 10)
with raises(APIError, 400, 'you must choose at least one stream'):
    box.logs(stdout=False, stderr=False)
with raises(NotFound):
    api.logs('absent')

# Following: every line as it comes, and the end of the container ends it.
box = started('follow', 'i=0; while [ ! -e /tmp/stop ]; do echo line $i; i=$((i+1)); sleep 0.02; done; echo last')
seen = b''
for chunk in box.logs(stream=True, follow=True):
    seen += chunk
    if b'line 5\n' in seen and b'stopping' not in seen:
        box.exec_run(['touch', '/tmp/stop'])
        seen += b'stopping'
assert seen.startswith(b'line 0\nline 1\n') and seen.endswith(b'last\n'), seen
stream = started('closed', 'while :; do echo x; sleep 0.02; done').logs(stream=True, follow=True)
equal(next(stream), b'x\n')
stream.close()
client.containers.get('closed').remove(force=True)

# A terminal's log is raw.
box = started('tty', 'echo out; echo err >&2', tty=True)
box.wait()
equal(box.logs(), b'out\r\nerr\r\n')

# Long lines and zeros come back as they were.
box = started('long', 'head -c 100000 /dev/zero | tr "\\0" a; echo; printf "\\000\\n"')
box.wait()
equal(box.logs(), b'a' * 100000 + b'\n' + b'\0\n')
# No log, and containers.run says so by giving none.
equal(sh('echo x', remove=True, log_config=LogConfig(type='none')), None)
