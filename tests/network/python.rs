//! docker-py's networks.

use super::site::Site;
use crate::support::requires;
use crate::support::requires::requires;

const SCRIPT: &str = r"
from docker.types import EndpointConfig, IPAMConfig, IPAMPool

pool = IPAMPool(subnet='10.41.0.0/24', gateway='10.41.0.254', iprange='10.41.0.128/25', aux_addresses={'a': '10.41.0.129'})
net = client.networks.create('net', driver='bridge', ipam=IPAMConfig(pool_configs=[pool]), labels={'a': 'b'},
                             options={'com.docker.network.driver.mtu': '1400'})
assert [n.name for n in client.networks.list(names=['net'])] == ['net']
assert client.networks.get(net.id).attrs['IPAM']['Config'][0]['Gateway'] == '10.41.0.254'
web = client.containers.run('busybox', ['sleep', '1000'], name='web', detach=True, network='net',
                            ports={'80/tcp': 8080, '81/tcp': ('127.0.0.1', None), '82/udp': [9001, 9002]},
                            networking_config={'net': client.api.create_endpoint_config(aliases=['www'], ipv4_address='10.41.0.9')})
web.reload()
settings = web.attrs['NetworkSettings']
assert settings['Networks']['net']['IPAddress'] == '10.41.0.9', settings
assert web.ports['80/tcp'] == [{'HostIp': '0.0.0.0', 'HostPort': '8080'}, {'HostIp': '::', 'HostPort': '8080'}], web.ports
assert web.ports['81/tcp'][0]['HostIp'] == '127.0.0.1' and int(web.ports['81/tcp'][0]['HostPort']) > 0
assert sorted({p['HostPort'] for p in web.ports['82/udp']}) == ['9001', '9002'], web.ports
more = client.networks.create('more', internal=True, enable_ipv6=False)
more.connect(web, aliases=['other'])
more.reload()
assert [c.name for c in more.containers] == ['web']
web.reload()
assert 'other' in web.attrs['NetworkSettings']['Networks']['more']['Aliases']
try:
    more.remove()
    raise AssertionError('removed with a container in it')
except docker.errors.APIError as error:
    assert error.status_code == 403, error
more.disconnect(web)
more.remove()
try:
    client.networks.create('net')
    raise AssertionError('made twice')
except docker.errors.APIError as error:
    assert error.status_code == 409, error
code, output = web.exec_run('nslookup www')
assert b'10.41.0.9' in output, output
web.remove(force=True)
assert client.networks.prune()['NetworksDeleted'] == ['net']
";

#[test]
fn docker_py_makes_joins_and_removes() {
    requires!(root, docker_py, iproute);
    let site = Site::new();
    requires::python_path().expect("required above");
    site.daemon.python(SCRIPT).ok();
}
