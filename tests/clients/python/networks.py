"""Networks: those that are always there, and one of one's own with a container in it."""

equal(sorted(n.name for n in client.networks.list()), ['bridge', 'host', 'none'])
equal([n.name for n in client.networks.list(names=['host'])], ['host'])
equal([n.name for n in client.networks.list(filters={'driver': 'host'})], ['host'])
host = client.networks.get('host')
equal((host.attrs['Driver'], host.attrs['Scope'], len(host.id)), ('host', 'local', 64))
equal(client.networks.get(host.id).name, 'host')
with raises(NotFound, 404, 'absent'):
    client.networks.get('absent')
mine = client.networks.create('mine', driver='bridge', labels={'a': 'b'})
equal(client.networks.get('mine').attrs['Labels'], {'a': 'b'})
with raises(APIError, 409, 'already exists'):
    client.networks.create('mine')
web = client.containers.run('busybox', 'sleep 1000', name='web', network='mine', ports={'80/tcp': None}, detach=True)
web.reload()
address = web.attrs['NetworkSettings']['Networks']['mine']['IPAddress']
mine.reload()
equal([(c.name, c.id) for c in mine.containers], [('web', web.id)])
equal(mine.attrs['Containers'][web.id]['IPv4Address'].split('/')[0], address)
equal(len(web.ports['80/tcp']), 2)
client.networks.get('bridge').connect(web)
web.reload()
equal(sorted(web.attrs['NetworkSettings']['Networks']), ['bridge', 'mine'])
mine.disconnect(web)
web.reload()
equal(sorted(web.attrs['NetworkSettings']['Networks']), ['bridge'])
mine.connect(web, aliases=['site'], ipv4_address=None)
with raises(APIError, 403, 'active endpoints'):
    mine.remove()
web.remove(force=True)
mine.remove()
with raises(NotFound, 404, 'mine'):
    client.networks.get('mine')
