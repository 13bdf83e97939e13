"""Lists and their filters; the life of a container, from create to remove."""

names = lambda **options: sorted(c.name for c in client.containers.list(**options))

one = started('one', labels={'a': 'b', 'c': ''}, ports={'80/tcp': None}, volumes=[f'{DIR}:/data'])
two = started('two', labels={'a': 'x'})
two.kill()
two.wait()
three = client.containers.create('busybox', ['true'], network_mode='none', name='three')
equal(names(), ['one'])
equal(names(all=True), ['one', 'three', 'two'])
equal(names(limit=1), ['three'])
equal([c.id for c in client.containers.list(sparse=True)], [one.id])
for filters, expected in [
    ({'status': 'exited'}, ['two']),
    ({'status': ['exited', 'created']}, ['three', 'two']),
    ({'status': 'running'}, ['one']),
    ({'label': 'a'}, ['one', 'two']),
    ({'label': ['a=b', 'c']}, ['one']),
    ({'label': 'a=nope'}, []),
    ({'name': 'o'}, ['one', 'two']),
    ({'name': '^o'}, ['one']),
    ({'name': '^(one|two)$'}, ['one', 'two']),
    ({'id': two.id[:20]}, ['two']),
    ({'exited': 137}, ['two']),
    ({'ancestor': 'busybox'}, ['one', 'three', 'two']),
    ({'ancestor': client.images.get('busybox').id}, ['one', 'three', 'two']),
    ({'ancestor': 'absent'}, []),
    ({'since': 'one'}, ['three', 'two']),
    ({'before': 'three'}, ['one', 'two']),
    ({'volume': '/data'}, ['one']),
    ({'network': 'none'}, ['one', 'three', 'two']),
    ({'health': 'none'}, ['one', 'three', 'two']),
    ({'expose': '80'}, ['one']),
    ({'publish': '80/tcp'}, ['one']),
    ({'publish': '81'}, []),
    ({'is-task': 'false'}, ['one', 'three', 'two']),
    ({'is-task': 'true'}, []),
    ({'isolation': 'default'}, ['one', 'three', 'two']),
]:
    got = names(all=True, filters=filters)
    assert got == expected, f'{filters}: {got}, expected {expected}'
with raises(APIError, 400):
    client.containers.list(filters={'nope': 'x'})
with raises(APIError, 400):
    client.containers.list(filters={'status': 'nope'})
row = api.containers(all=True, filters={'name': '^one'})[0]
equal((row['Names'], row['State'], row['Labels']), (['/one'], 'running', {'a': 'b', 'c': ''}))
equal(api.containers(quiet=True), [{'Id': one.id}])

# Names and prefixes; renaming.
equal(client.containers.get(one.id[:10]).name, 'one')
with raises(NotFound, 404, 'No such container: absent'):
    client.containers.get('absent')
one.rename('uno')
one.reload()
equal(one.name, 'uno')
with raises(APIError, 409):
    one.rename('two')

# Pausing, stopping, starting again, waiting.
one.pause()
one.reload()
equal(one.status, 'paused')
with raises(APIError, 409):
    one.exec_run('true')
one.unpause()
one.restart(timeout=0)
one.reload()
equal(one.status, 'running')
one.stop(timeout=0)
one.stop()
one.reload()
equal((one.status, one.attrs['State']['ExitCode']), ('exited', 137))
one.start()
one.start()
with raises(APIError, 409):
    one.remove()
with raises(Exception, text='timed out'):
    one.wait(timeout=0.3)
one.kill(signal='SIGKILL')
equal(one.wait(condition='not-running'), {'StatusCode': 137})
with raises(APIError, 409, 'is not running'):
    one.kill()
with raises(APIError, 400):
    one.kill(signal='NOPE')
equal(sorted(two.wait().items())[0][0], 'StatusCode')
stopped = started('term', 'trap "exit 7" TERM; while :; do sleep 0.05; done')
eventually('it has started', lambda: api.top('term')['Processes'])
stopped.stop(timeout=15)
assert stopped.wait()['StatusCode'] in (7, 137, 143), stopped.wait()

# top and update.
one.start()
top = one.top()
assert 'PID' in top['Titles'] and len(top['Processes']) == 1, top
equal(one.top(ps_args='aux')['Titles'][0], 'USER')
one.update(
    mem_limit='128m', memswap_limit='256m', cpu_shares=256, restart_policy={'Name': 'always'})
one.reload()
equal((one.attrs['HostConfig']['Memory'], one.attrs['HostConfig']['RestartPolicy']['Name']), (128 << 20, 'always'))
one.update(restart_policy={'Name': 'no'})

# stats once and as a stream.
stats = one.stats(stream=False)
assert stats['memory_stats']['usage'] > 0 and stats['memory_stats']['limit'] == 128 << 20, stats['memory_stats']
assert stats['cpu_stats']['cpu_usage']['total_usage'] > 0 and stats['pids_stats']['current'] == 1, stats
assert stats['precpu_stats']['cpu_usage']['total_usage'] > 0, 'stream=False waits for two samples'
equal((stats['name'], stats['id']), ('/uno', one.id))
assert api.stats('uno', stream=False, one_shot=True)['precpu_stats']['cpu_usage']['total_usage'] == 0
stream = one.stats(decode=True)
first, second = next(stream), next(stream)
assert first['read'] < second['read'], (first['read'], second['read'])
raw = json.loads(next(one.stats(stream=True)))
equal(raw['id'], one.id)

# Removing.
one.remove(force=True, v=True)
with raises(NotFound):
    one.remove()
for box in client.containers.list(all=True):
    box.remove(force=True)
equal(names(all=True), [])
