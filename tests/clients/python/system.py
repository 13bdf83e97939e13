"""ping, version, info, events; versions of the API; sockets; what errors look like."""

import threading

equal(client.ping(), True)
version = client.version()
equal((version['ApiVersion'], version['MinAPIVersion'], version['Os']), ('1.51', '1.24', 'linux'))
equal(version['Components'][0]['Name'], 'Engine')
info = client.info()
equal((info['Containers'], info['Images'], info['OSType'], info['LoggingDriver']), (0, 1, 'linux', 'json-file'))
equal(info['Swarm']['LocalNodeState'], 'inactive')
for key in ('ID', 'Name', 'NCPU', 'MemTotal', 'ServerVersion', 'OperatingSystem', 'Architecture', 'KernelVersion', 'Driver', 'Plugins',
            'RegistryConfig', 'Runtimes', 'SecurityOptions', 'CgroupDriver', 'CgroupVersion', 'DockerRootDir', 'Labels', 'Warnings'):
    assert key in info, f'{key} is not in info'

# Versions: what the daemon has, what is fixed, what is too new.
for asked, used in [('auto', '1.51'), ('1.24', '1.24'), ('1.40', '1.40'), ('1.44', '1.44'), (None, '1.51')]:
    other = docker.DockerClient(base_url=HOST, version=asked)
    equal((other.api.api_version, other.ping()), (used, True))
    box = other.containers.create('busybox', ['true'], network_mode='none', name='any')
    equal([c.name for c in other.containers.list(all=True)], ['any'])
    box.start()
    equal(box.wait()['StatusCode'], 0)
    box.remove()
    assert other.images.list() and other.info()['Containers'] == 0
    other.close()
with raises(APIError, 400, 'client version 1.99 is too new'):
    docker.DockerClient(base_url=HOST, version='1.99').ping()
equal(docker.from_env().ping(), True)

# Events: live, filtered, past, by type.
seen = []
ready = threading.Event()


def follow():
    stream = client.events(decode=True, filters={'type': 'container', 'event': ['create', 'start', 'die', 'destroy'], 'label': 'watched'})
    ready.set()
    for event in stream:
        seen.append(event)
        if event['Action'] == 'destroy':
            stream.close()
            return


begin = int(time.time())
watcher = threading.Thread(target=follow)
watcher.start()
ready.wait()
sh('exit 3', name='quiet', detach=True).wait()
sh('exit 4', name='watched', labels=['watched'], detach=True).wait()
client.containers.get('watched').remove()
client.containers.get('quiet').remove()
watcher.join(20)
equal([e['Action'] for e in seen], ['create', 'start', 'die', 'destroy'])
equal((seen[2]['Actor']['Attributes']['exitCode'], seen[2]['Actor']['Attributes']['name']), ('4', 'watched'))
equal((seen[0]['Type'], seen[0]['status'], seen[0]['from'], seen[0]['scope']), ('container', 'create', 'busybox', 'local'))
past = list(client.events(decode=True, since=begin, until=int(time.time()) + 1, filters={'container': 'quiet', 'event': 'die'}))
equal([e['Actor']['Attributes']['exitCode'] for e in past], ['3'])
equal([json.loads(line)['Action'] for line in client.events(since=begin, until=int(time.time()) + 1, filters={
    'container': ['quiet', 'watched'], 'image': 'busybox', 'event': 'destroy'})], ['destroy', 'destroy'])
equal(list(client.events(decode=True, since=begin, until=int(time.time()) + 1, filters={'type': 'network', 'event': 'create'})), [])

# What ends a container is told in the order of cause and effect.
box = started('ends', 'exec sleep 1000', stop_signal='SIGKILL')
begin = int(time.time())
box.stop(timeout=5)
box.start()
box.restart(timeout=5)
box.kill()
box.wait()
box.start()
box.remove(force=True)
told = [e['Action'] for e in client.events(decode=True, since=begin, until=int(time.time()) + 1, filters={'container': box.id})
        if e['Action'] not in ('create', 'attach')]
stop = ['kill', 'die', 'stop', 'start']
equal(told[told.index('kill'):], stop + stop + ['restart', 'kill', 'die', 'start', 'kill', 'die', 'destroy'])

# An exec is told in its order, however quick it is.
box = started('execs')
begin = int(time.time())
for _ in range(20):
    box.exec_run('true')
told = {}
for event in client.events(decode=True, since=begin, until=int(time.time()) + 1, filters={'container': 'execs'}):
    if 'execID' in event['Actor']['Attributes']:
        told.setdefault(event['Actor']['Attributes']['execID'], []).append(event['Action'].split(':')[0])
equal((len(told), set(map(tuple, told.values()))), (20, {('exec_create', 'exec_start', 'exec_die')}))
box.remove(force=True)

# Errors: classes, statuses, explanations.
try:
    client.containers.get('absent')
except NotFound as error:
    assert error.is_client_error() and error.is_error() and not error.is_server_error()
    equal((error.status_code, error.explanation), (404, 'No such container: absent'))
for call, status in [
    (lambda: api._result(api._post_json(api._url('/containers/create'), data=None), True), 400),
    (lambda: api._result(api._post(api._url('/containers/create'), data='{bad', headers={'Content-Type': 'application/json'}), True), 400),
    (lambda: api._result(api._post(api._url('/containers/create'), data='[1]', headers={'Content-Type': 'application/json'}), True), 400),
    (lambda: api._result(api._get(api._url('/nothing/here')), True), 404),
    (lambda: api.init_swarm(), 503),
    (lambda: api.services(), 503),
    (lambda: client.nodes.list(), 503),
    (lambda: api.login('user', 'password', registry='127.0.0.1:1', dockercfg_path=DIR), 500),
]:
    with raises(APIError, status):
        call()
