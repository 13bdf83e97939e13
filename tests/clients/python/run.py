"""containers.run and the options of create."""

# Output, streams, removal.
equal(sh('echo out; echo err >&2', remove=True), b'out\n')
equal(sh('echo out; echo err >&2', remove=True, stderr=True), b'out\nerr\n')
equal(sh('echo out; echo err >&2', remove=True, stdout=False, stderr=True), b'err\n')
equal(b''.join(sh('for i in 1 2 3; do echo $i; done', remove=True, stream=True)), b'1\n2\n3\n')
equal(run('echo a string', remove=True), b'a string\n')
equal(client.containers.list(all=True), [])
with raises(ContainerError, text='returned non-zero exit status 3'):
    sh('echo bad >&2; exit 3', remove=True)
try:
    sh('echo good; echo bad >&2; exit 4', remove=True)
except ContainerError as error:
    equal((error.exit_status, error.stderr, error.image), (4, b'bad\n', 'busybox'))
# detach with remove: the daemon removes it.
box = sh('exit 0', detach=True, remove=True, name='goes')
eventually('the container is gone', lambda: not client.containers.list(all=True, filters={'name': 'goes'}, ignore_removed=True))

# What the process sees.
script = 'echo $A $B; pwd; id -u; id -g; hostname; cat /proc/1/limits | grep "open files"; cat /proc/sys/net/ipv4/ip_default_ttl'
out = sh(script, remove=True, environment={'A': 'a b', 'B': None}, working_dir='/tmp', user='1000:50', hostname='here',
         ulimits=[Ulimit(name='nofile', soft=100, hard=200)], sysctls={'net.ipv4.ip_default_ttl': '7'})
lines = out.decode().split('\n')
equal(lines[:5], ['a b', '/tmp', '1000', '50', 'here'])
equal(lines[5].split()[3:5], ['100', '200'])
equal(lines[6], '7')
equal(sh('echo $X', remove=True, environment=['X=list']), b'list\n')

# Volumes, tmpfs, mounts.
host = os.path.join(DIR, 'shared')
os.makedirs(host)
sh('echo written > /data/file', remove=True, volumes={host: {'bind': '/data', 'mode': 'rw'}})
with open(os.path.join(host, 'file')) as file:
    equal(file.read(), 'written\n')
with raises(ContainerError, text='Read-only file system'):
    sh('echo no > /data/file', remove=True, volumes=[f'{host}:/data:ro'])
out = sh('grep -c "^tmpfs /scratch" /proc/mounts; df -k /scratch | tail -1', remove=True, tmpfs={'/scratch': 'size=1m,mode=1777'})
assert out.startswith(b'1\n') and b'1024' in out, out
out = sh('cat /m/file; grep " /t " /proc/mounts', remove=True, mounts=[
    Mount('/m', host, type='bind', read_only=True), Mount('/t', None, type='tmpfs', tmpfs_size=2 << 20)])
assert out.startswith(b'written\n') and b'size=2048k' in out, out

# Limits, capabilities, init, and what inspect says of them.
box = started('limited', mem_limit='64m', nano_cpus=500_000_000, pids_limit=40, cpu_shares=512, cap_add=['NET_ADMIN'], cap_drop=['CHOWN'],
              init=True, labels=['only'], restart_policy={'Name': 'on-failure', 'MaximumRetryCount': 2}, shm_size='1m',
              log_config=LogConfig(type=LogConfig.types.JSON, config={'max-size': '1m'}), read_only=True, stop_signal='SIGINT',
              extra_hosts={'other': '127.0.0.9'}, dns=['127.0.0.53'], oom_score_adj=100, security_opt=['no-new-privileges'],
              group_add=['50'], domainname='example', mem_reservation='32m', mem_swappiness=-1)
host_config, config = box.attrs['HostConfig'], box.attrs['Config']
equal([host_config[k] for k in ('Memory', 'NanoCpus', 'PidsLimit', 'CpuShares', 'ShmSize', 'MemoryReservation')],
      [64 << 20, 500_000_000, 40, 512, 1 << 20, 32 << 20])
equal(host_config['RestartPolicy'], {'Name': 'on-failure', 'MaximumRetryCount': 2})
equal(host_config['LogConfig'], {'Type': 'json-file', 'Config': {'max-size': '1m'}})
equal((host_config['Init'], host_config['ReadonlyRootfs'], config['StopSignal']), (True, True, 'SIGINT'))
box.reload()
equal((box.labels, box.status), ({'only': ''}, 'running'))
equal((box.name, box.short_id), ('limited', box.id[:12]))
equal(box.image.tags, ['busybox:latest'])
code, out = box.exec_run(['sh', '-c', 'grep -q "127.0.0.9.other" /etc/hosts && grep CapEff /proc/1/status; cat /proc/1/oom_score_adj; df -k /dev/shm | tail -1'])
equal(code, 0)
assert b'1024' in out and b'100\n' in out, out
box.remove(force=True)

# Healthcheck goes through as it was said (nanoseconds).
box = client.containers.create('busybox', ['sleep', '1000'], network_mode='none', healthcheck=Healthcheck(
    test=['CMD', 'true'], interval=10**9, timeout=2 * 10**9, retries=3, start_period=10**9))
equal(api.inspect_container(box.id)['Config']['Healthcheck'],
      {'Test': ['CMD', 'true'], 'Interval': 10**9, 'Timeout': 2 * 10**9, 'Retries': 3, 'StartPeriod': 10**9})
box.remove()

# What cannot be had is refused in words.
with raises(ImageNotFound, 404, 'No such image'):
    api.create_container('absent:v1', 'true')
with raises(APIError, text='device'):
    run('true', remove=True, device_requests=[docker.types.DeviceRequest(count=-1, capabilities=[['gpu']])])
with raises(APIError, 400, 'no command specified'):
    api.create_container('busybox', entrypoint=[''])
with raises(APIError, 400):
    run('true', name='bad/name')
with raises(APIError, 400, 'executable file not found'):
    run('absent-program', name='x1')
client.containers.get('x1').remove()
started('taken')
with raises(APIError, 409, 'is already in use by container'):
    run('true', name='taken')
client.containers.get('taken').remove(force=True)
equal(client.containers.list(all=True), [])
