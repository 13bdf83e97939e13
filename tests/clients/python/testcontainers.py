"""Testcontainers: containers for the length of a test, waited for by what they say.

Ryuk, its reaper, is switched off: it is an image that would have to be pulled.
"""

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.wait_strategies import LogMessageWaitStrategy
from testcontainers.core.waiting_utils import wait_for_logs

assert testcontainers_config.ryuk_disabled
host = os.path.join(DIR, 'shared')
os.makedirs(host)
with open(os.path.join(host, 'in'), 'w') as file:
    file.write('from the host\n')


def container(script):
    return DockerContainer('busybox').with_kwargs(network_mode='host').with_command(['sh', '-c', script])


with container('echo "env $WHO"; cat /shared/in; echo ready; exec sleep 1000') \
        .with_env('WHO', 'tester').with_volume_mapping(host, '/shared', 'rw').with_name('tested') as box:
    wait_for_logs(box, 'ready', timeout=20)
    out, err = box.get_logs()
    equal((out, err), (b'env tester\nfrom the host\nready\n', b''))
    code, out = box.exec(['sh', '-c', 'echo "in $WHO" > /shared/out; cat /shared/out; exit 3'])
    equal((code, out), (3, b'in tester\n'))
    wrapped = box.get_wrapped_container()
    equal(wrapped.name, 'tested')
    assert any(label.startswith('org.testcontainers') for label in wrapped.labels), wrapped.labels
    assert box.get_container_host_ip() in ('localhost', '127.0.0.1'), box.get_container_host_ip()
with open(os.path.join(host, 'out')) as file:
    equal(file.read(), 'in tester\n')
with raises(NotFound):
    client.containers.get('tested')

# Started and stopped by hand, waiting by a strategy; a server is reached on the host's network.
port = socket.create_server(('127.0.0.1', 0)).getsockname()[1]
box = container(f'echo served > /tmp/index.html; echo listening; exec httpd -f -p 127.0.0.1:{port} -h /tmp')
box.waiting_for(LogMessageWaitStrategy('listening').with_startup_timeout(20))
box.start()
import urllib.request


def served():
    try:
        return urllib.request.urlopen(f'http://127.0.0.1:{port}/index.html', timeout=5).read() == b'served\n'
    except OSError:
        return False


eventually('the server answers', served)
box.stop()
equal(client.containers.list(all=True), [])

# What fails says so: the image that is not there, the log that never comes.
with raises(Exception, text='absent'):
    DockerContainer('absent:v1').start()
with container('exec sleep 1000') as silent:
    with raises(TimeoutError):
        wait_for_logs(silent, 'never', timeout=0.5)
equal(client.containers.list(all=True), [])
assert DockerClient().client.ping()
