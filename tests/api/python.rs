//! docker-py: the client that reads every field literally.

use crate::support::Daemon;
use crate::support::requires::requires;

#[test]
fn runs_and_reads_containers() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let script = r#"
assert client.ping()
assert client.version()['ApiVersion'] == '1.51'
out = client.containers.run('busybox', ['sh', '-c', 'echo out; echo err >&2'], network_mode='none', remove=True)
assert out == b'out\n', out
try:
    client.containers.run('busybox', ['sh', '-c', 'echo bad >&2; exit 3'], network_mode='none', remove=True)
    raise SystemExit('no ContainerError')
except docker.errors.ContainerError as error:
    assert error.exit_status == 3, error
    assert b'bad' in error.stderr, error.stderr
web = client.containers.run('busybox', ['sleep', '1000'], network_mode='none', name='web', detach=True, labels={'a': 'b'})
assert [c.name for c in client.containers.list()] == ['web']
assert client.containers.list(filters={'label': 'a=b'})[0].id == web.id
assert client.containers.list(filters={'label': 'a=c'}) == []
code, out = web.exec_run(['sh', '-c', 'echo hi; echo no >&2; exit 4'], demux=True)
assert (code, out) == (4, (b'hi\n', b'no\n')), (code, out)
code, out = web.exec_run(['sh', '-c', 'tty'], tty=True)
assert code == 0 and out.startswith(b'/dev/pts/'), (code, out)
web.pause(); web.reload(); assert web.status == 'paused', web.status
web.unpause()
assert web.top()['Processes']
web.stop(timeout=0); web.reload(); assert web.status == 'exited', web.status
web.start(); web.kill(); assert web.wait()['StatusCode'] == 137
web.remove()
assert client.containers.list(all=True) == []
"#;
    daemon.python(script).ok();
}

#[test]
fn handles_images_and_archives() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let script = r#"
import io, tarfile
image = client.images.get('busybox')
assert image.tags == ['busybox:latest'], image.tags
assert image.tag('other/name', tag='v1')
assert sorted(client.images.get('busybox').tags) == ['busybox:latest', 'other/name:v1']
client.images.remove('other/name:v1')
try:
    client.images.get('other/name:v1')
    raise SystemExit('no ImageNotFound')
except docker.errors.ImageNotFound:
    pass
box = client.containers.create('busybox', ['true'], network_mode='none')
data = io.BytesIO()
with tarfile.open(fileobj=data, mode='w') as tar:
    entry = tarfile.TarInfo('greeting'); entry.size = 5
    tar.addfile(entry, io.BytesIO(b'hello'))
assert box.put_archive('/tmp', data.getvalue())
stream, stat = box.get_archive('/tmp/greeting')
assert stat['name'] == 'greeting' and stat['size'] == 5, stat
with tarfile.open(fileobj=io.BytesIO(b''.join(stream))) as tar:
    assert tar.extractfile('greeting').read() == b'hello'
box.remove()
"#;
    daemon.python(script).ok();
}

#[test]
fn follows_events_and_attaches() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let script = r#"
box = client.containers.create('busybox', ['cat'], network_mode='none', stdin_open=True, name='cat')
events = client.events(decode=True)
sock = box.attach_socket(params={'stdin': 1, 'stdout': 1, 'stream': 1})
box.start()
sock._sock.sendall(b'ping\n')
header = sock._sock.recv(8)
assert header[0] == 1 and header[7] == 5, header
assert sock._sock.recv(5) == b'ping\n'
sock.close()
box.kill()
box.wait()
seen = []
for event in events:
    seen.append(event['Action'])
    if event['Action'] == 'die':
        break
assert 'start' in seen and 'kill' in seen, seen
box.remove()
"#;
    daemon.python(script).ok();
}
