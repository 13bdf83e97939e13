"""A container's files: archives in and out, diff, commit, export; prune and df."""

one = started('one')
with raises(APIError, 404):
    one.get_archive('/absent')
one.put_archive('/tmp', tar_of(a=b'one', b=b'two'))
chunks, stat = one.get_archive('/tmp/a', chunk_size=7)
equal((untar(chunks), stat['name'], stat['size']), ({'a': b'one'}, 'a', 3))
chunks, _ = one.get_archive('/tmp', encode_stream=True)
equal(untar(chunks), {'tmp': None, 'tmp/a': b'one', 'tmp/b': b'two'})
with raises(NotFound):
    one.put_archive('/absent', tar_of(a=b''))
equal(sorted((c['Path'], c['Kind']) for c in one.diff()), [('/tmp', 0), ('/tmp/a', 1), ('/tmp/b', 1)])
files = untar(one.export(chunk_size=4096))
equal((files['tmp/a'], files['tmp/b']), (b'one', b'two'))
image = one.commit(repository='made', tag='v1', message='why', author='who', changes=['ENV X=y', 'CMD ["cat", "/tmp/a"]'])
equal(image.tags, ['made:v1'])
equal(client.containers.run('made:v1', network_mode='none', remove=True), b'one')
equal((image.attrs['Comment'], image.attrs['Author']), ('why', 'who'))
assert 'X=y' in image.attrs['Config']['Env'], image.attrs


# Pruning: what has ended goes, what runs stays; df counts both.
two = started('two', 'echo two > /file')
two.wait()
usage = client.df()
assert usage['LayersSize'] > 0 and ['busybox:latest'] in [i['RepoTags'] for i in usage['Images']], usage
equal((sorted(c['Names'][0] for c in usage['Containers']), usage['Volumes'], usage['BuildCache']), (['/one', '/two'], [], []))
assert all(c['SizeRw'] > 0 and c['SizeRootFs'] > c['SizeRw'] for c in usage['Containers']), usage['Containers']
row = api.containers(size=True, filters={'name': 'one'})[0]
assert row['SizeRootFs'] > row['SizeRw'] > 0, row
equal(client.containers.prune()['ContainersDeleted'], [two.id])
assert not client.containers.prune()['ContainersDeleted']
equal([c.name for c in client.containers.list(all=True)], ['one'])
