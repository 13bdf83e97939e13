"""Networks: those that are always there; new ones come later, and say so."""

equal(sorted(n.name for n in client.networks.list()), ['bridge', 'host', 'none'])
equal([n.name for n in client.networks.list(names=['host'])], ['host'])
equal([n.name for n in client.networks.list(filters={'driver': 'host'})], ['host'])
host = client.networks.get('host')
equal((host.attrs['Driver'], host.attrs['Scope'], len(host.id)), ('host', 'local', 64))
equal(client.networks.get(host.id).name, 'host')
with raises(NotFound, 404, 'absent'):
    client.networks.get('absent')
with raises(APIError, 501, 'network'):
    client.networks.create('mine')
