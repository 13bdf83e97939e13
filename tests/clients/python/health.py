"""Health: what a check says, in inspect, list, filters and events."""

second = 10**9
events = client.events(decode=True, filters={'event': 'health_status'})
box = started('checked', 'exec sleep 1000', healthcheck=Healthcheck(
    test=['CMD-SHELL', 'test -e /tmp/well && echo fine'], interval=second // 5, timeout=20 * second, retries=2))
box.reload()
assert box.health in ('starting', 'unhealthy'), box.health
equal(next(events)['Action'], 'health_status: unhealthy')
box.reload()
equal((box.health, box.status), ('unhealthy', 'running'))
equal([c.name for c in client.containers.list(filters={'health': 'unhealthy'})], ['checked'])
assert '(unhealthy)' in api.containers()[0]['Status']
assert box.attrs['State']['Health']['FailingStreak'] >= 2, box.attrs['State']['Health']
box.exec_run(['touch', '/tmp/well'])
equal(next(events)['Action'], 'health_status: healthy')
box.reload()
equal(box.health, 'healthy')
last = box.attrs['State']['Health']['Log'][-1]
equal((last['ExitCode'], last['Output']), (0, 'fine\n'))
assert last['Start'] < last['End'], last
equal([c.name for c in client.containers.list(filters={'health': 'healthy'})], ['checked'])
box.stop(timeout=0)
events.close()
equal(started('plain').health, 'unknown')
# NONE switches an image's check off.
off = client.containers.create('busybox', ['true'], network_mode='none', healthcheck={'test': ['NONE']})
equal(off.attrs['Config']['Healthcheck']['Test'], ['NONE'])
