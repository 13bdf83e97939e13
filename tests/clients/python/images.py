"""Images: list, load, save, import, tag, history, remove, prune."""

image = client.images.get('busybox')
equal((image.tags, image.short_id), (['busybox:latest'], image.id[:19]))
equal(image.labels, {})
equal([i.id for i in client.images.list()], [image.id])
equal([i.id for i in client.images.list(name='busybox')], [image.id])
equal(client.images.list(name='absent'), [])
equal(client.images.list(filters={'dangling': True}), [])
equal([i.id for i in client.images.list(filters={'reference': 'busy*'})], [image.id])
equal(client.images.list(filters={'label': 'none'}), [])
equal(api.images(quiet=True), [image.id])
row = api.images()[0]
assert row['RepoTags'] == ['busybox:latest'] and row['Size'] > 0 and row['Created'] > 0, row
equal(len(image.history()), 1)
assert image.attrs['Os'] == 'linux' and image.attrs['RootFS']['Layers'], image.attrs
equal(client.images.get(image.id).id, image.id)
equal(client.images.get(image.id[7:19]).id, image.id)
with raises(ImageNotFound, 404, 'No such image: absent'):
    client.images.get('absent')

# Tags.
equal(image.tag('some.where/other', tag='v1'), True)
equal(image.tag('third:v2'), True)
image.reload()
equal(sorted(image.tags), ['busybox:latest', 'some.where/other:v1', 'third:v2'])
with raises(APIError, 400):
    image.tag('BAD/Name')
client.images.remove('some.where/other:v1')
client.images.remove('third:v2')

# Out and in again: by name, so that the tag comes back.
saved = b''.join(image.save(named=True))
assert 'manifest.json' in untar([saved]), untar([saved]).keys()
client.images.remove('busybox', force=True)
equal(client.images.list(), [])
loaded = client.images.load(saved)
equal([(i.id, i.tags) for i in loaded], [(image.id, ['busybox:latest'])])
anonymous = b''.join(image.save())
client.images.remove('busybox')
equal([i.id for i in client.images.load(io.BytesIO(anonymous))], [image.id])
client.images.get(image.id).tag('busybox')
with raises(APIError):
    client.images.load(b'no archive')

# import, in its three ways of giving a body.
layer = tar_of(hello=b'world')
path = os.path.join(DIR, 'layer.tar')
with open(path, 'wb') as file:
    file.write(layer)
status = [json.loads(line) for line in api.import_image_from_data(layer, repository='made', tag='v1').splitlines()]
equal(status[-1]['status'], client.images.get('made:v1').id)
api.import_image_from_file(path, repository='made', tag='v2')
equal(client.images.get('made:v2').attrs['RootFS'], client.images.get('made:v1').attrs['RootFS'])
api.import_image_from_data(layer, repository='made', tag='v3', changes=['CMD ["x"]', 'ENV A=b'])
equal((client.images.get('made:v3').attrs['Config']['Cmd'], client.images.get('made:v3').attrs['Config']['Env']), (['x'], ['A=b']))

# Removing: in use, forced, pruned.
box = client.containers.create('busybox', ['true'], network_mode='none')
with raises(APIError, 409):
    client.images.remove(image.id)
box.remove()
for tag in ('made:v1', 'made:v2', 'made:v3'):
    client.images.remove(tag)
with raises(ImageNotFound):
    client.images.remove('made:v1')
equal([i.tags for i in client.images.list()], [['busybox:latest']])
api.import_image_from_data(layer, repository='made', tag='v1')
gone = client.images.get('made:v1').id
api.import_image_from_data(tar_of(other=b''), repository='made', tag='v1')
equal([i.id for i in client.images.list(filters={'dangling': True})], [gone])
pruned = client.images.prune(filters={'dangling': True})
assert {'Deleted': gone} in pruned['ImagesDeleted'], pruned
assert not client.images.prune()['ImagesDeleted']

# No registry is within reach, and that is said.
for call in (lambda: client.images.pull('absent/image', tag='v1'), lambda: client.images.search('busybox')):
    with raises(APIError, 500):
        call()
pushed = [line for line in client.images.push('busybox', stream=True, decode=True)]
assert 'registry-1.docker.io' in pushed[-1]['errorDetail']['message'], pushed

built, log = client.images.build(fileobj=io.BytesIO(b'FROM busybox\nLABEL built=yes\n'), tag='made:v1')
equal(built.labels, {'built': 'yes'})
assert any('Successfully tagged made:v1' in line.get('stream', '') for line in log), log
client.images.remove('made:v1')
