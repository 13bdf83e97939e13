//! `alias docker=dewar`: the same lines through the stock docker client and through dewar's own, on one daemon.
//!
//! Standard output, exit code and standard error must be the same but for the program's name. Lines that change
//! something are typed once for each client: `@` becomes `d` with docker and `w` with dewar, so each has its twin.
//! Where dewar means to differ, the line says how and why.
//!
//! Stays whole: a table, and the little that reads it.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, Output, binary, eventually};

/// What may differ on a line.
#[derive(Clone, Copy, Debug, PartialEq)]
enum But {
    /// Nothing.
    Nothing,
    /// The words on standard error; the reason.
    Words(&'static str),
    /// All but the exit code; the reason.
    Text(&'static str),
    /// Everything, the exit code too; both must still end by themselves. The reason.
    All(&'static str),
}
use But::{All, Nothing, Text, Words};

const HELP: &str = "dewar's help has its own words";
const NAMES_THE_FLAG: &str = "dewar names the flag that is wrong, docker does not";
const SAYS_WHAT_IT_EXPECTS: &str = "dewar says what it expects instead";
const SUGGESTS: &str = "dewar suggests what may have been meant";
const ADDS: &str = "docker adds a line of its own that says nothing";
const OWN_VERSION: &str = "each shows its own version";

/// What changes nothing.
const READING: &[(&str, But)] = &[
    ("ps", Nothing),
    ("ps -a", Nothing),
    ("ps -aq", Nothing),
    ("ps -aq --no-trunc", Nothing),
    ("ps -l", Nothing),
    ("ps -n 2", Nothing),
    ("ps -as", Nothing),
    ("ps --no-trunc", Nothing),
    ("container ls", Nothing),
    ("container list -q", Nothing),
    ("container ps -a", Nothing),
    ("ps -a --format json", Nothing),
    ("ps -a --format '{{json .}}'", Nothing),
    (
        "ps -a --format '{{.ID}} {{.Names}} {{.Label \"a\"}} {{.Labels}} {{.Mounts}} {{.State}} {{.Ports}}'",
        Nothing,
    ),
    ("ps -a --format '{{.Networks}} {{.LocalVolumes}} {{.Command}} {{.CreatedAt}} {{.Size}}'", Nothing),
    ("ps -a --format 'table {{.Names}}\\t{{.Image}}'", Nothing),
    ("ps -a --format 'table {{.Names}}\\t{{.Status}}'", Nothing),
    ("ps -a --format 'table {{.Names}}\\t{{upper .Image}}'", Nothing),
    ("ps --format '{{.Nope}}'", Nothing),
    ("ps --format '{{.ID'", Nothing),
    ("ps -f nonsense", Nothing),
    ("ps -f nonsense=1", Nothing),
    ("ps -a -f status=bogus", Nothing),
    ("ps -a -f status=exited", Nothing),
    ("ps -a -f status=paused", Nothing),
    ("ps -a -f name=we", Nothing),
    ("ps -a -f label=a", Nothing),
    ("ps -a -f label=a=b", Nothing),
    ("ps -a -f exited=3", Nothing),
    ("ps -a -f exited=x", Nothing),
    ("ps -a -f ancestor=busybox", Nothing),
    ("ps -a -f before=new", Nothing),
    ("ps -a -f since=done", Nothing),
    ("ps -a -f before=zzz", Nothing),
    ("ps -a -f id=zzz", Nothing),
    ("ps -a -f health=none", Nothing),
    ("ps -a -f health=starting", Nothing),
    ("ps -a -f health=bogus", Nothing),
    ("ps -a -f is-task=false", Nothing),
    ("ps -a -f network=none", Nothing),
    ("ps -a -f volume=/data", Nothing),
    ("ps -a -f publish=80", Nothing),
    ("ps -a -f expose=80", Nothing),
    ("ps -a -f isolation=default", Nothing),
    ("ps x", Nothing),
    ("ps --bogus", Nothing),
    ("ps -Z", Nothing),
    ("ps --format", Nothing),
    ("bogus", Nothing),
    ("container bogus", Words(SUGGESTS)),
    ("container", Words(HELP)),
    ("images", Nothing),
    ("images -a", Nothing),
    ("images -q", Nothing),
    ("images --no-trunc", Nothing),
    ("images --digests", Nothing),
    ("images --format json", Nothing),
    (
        "images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.VirtualSize}} {{.Containers}}'",
        Nothing,
    ),
    ("images --format '{{.SharedSize}} {{.CreatedSince}} {{.CreatedAt}} {{.Digest}}'", Nothing),
    ("images --format 'table {{.Repository}}\\t{{.Size}}'", Nothing),
    ("images busybox", Nothing),
    ("images bogus", Nothing),
    ("images 'b*'", Nothing),
    ("images a b", Words("docker's own text has a letter too many")),
    ("images -f dangling=true", Nothing),
    ("images -f reference='b*'", Nothing),
    ("images -f bogus=1", Nothing),
    ("images -f dangling=x", Nothing),
    ("images -f before=zzz", Nothing),
    ("image ls", Nothing),
    ("image list -q", Nothing),
    ("history busybox", Nothing),
    ("history --no-trunc busybox", Nothing),
    ("history -q busybox", Nothing),
    ("history -H=false busybox", Nothing),
    ("history --format json busybox", Nothing),
    ("history --format '{{.ID}} {{.CreatedBy}} {{.CreatedAt}} {{.Size}} {{.Comment}}' busybox", Nothing),
    ("history nope", Nothing),
    ("history", Nothing),
    ("inspect web", Nothing),
    ("inspect web done", Nothing),
    ("inspect busybox", Nothing),
    ("inspect --type container busybox", Nothing),
    ("inspect --type image web", Nothing),
    ("inspect --type image busybox", Nothing),
    ("inspect --type bogus web", Words("dewar has fewer kinds of objects")),
    ("inspect", Nothing),
    ("container inspect web", Nothing),
    ("container inspect nope", Nothing),
    ("container inspect", Nothing),
    ("image inspect busybox", Nothing),
    ("image inspect nope", Nothing),
    ("image inspect busybox nope", Nothing),
    ("inspect -f '{{.Id}}' web done", Nothing),
    ("inspect -f '{{.ID}}' web", Nothing),
    (
        "inspect -f '{{.Name}} {{.State.Status}} {{.State.Running}} {{.Config.Cmd}} {{.Config.Labels}}' web",
        Nothing,
    ),
    ("inspect -f '{{json .Config}}' web", Nothing),
    ("inspect -f '{{json .State}}' done", Nothing),
    ("inspect -f json busybox", Nothing),
    (
        "inspect -f '{{.HostConfig.RestartPolicy}} {{.HostConfig.Memory}} {{.HostConfig.ShmSize}}' web",
        Nothing,
    ),
    ("inspect -f '{{.Mounts}}' new", Nothing),
    ("inspect -f '{{range .Mounts}}{{.Source}}:{{.Destination}}{{end}}' new", Nothing),
    ("inspect -f '{{.Nope}}' web", Nothing),
    ("inspect -f '{{.State.Nope}}' web", Nothing),
    ("inspect -f '{{.Name.Nope}}' web", Nothing),
    ("inspect -f '{{.Nope}}' web done", Nothing),
    ("inspect -f '{{index .Config.Labels \"a\"}} {{index .Config.Labels \"zz\"}}|' web", Nothing),
    ("inspect -f '{{.Config.Labels.a}} {{.Config.Labels.zz}}' web", Nothing),
    ("inspect -f '{{index .NetworkSettings.Ports \"80/tcp\"}}' web", Nothing),
    ("inspect -f '{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}' web", Nothing),
    (
        "inspect -f '{{.Config.Entrypoint}} {{.HostConfig.Binds}} {{.HostConfig.MemorySwappiness}}' web",
        Nothing,
    ),
    ("inspect -f '{{.HostConfig.Binds}} {{.HostConfig.CapAdd}} {{.Config.Volumes}}' new", Nothing),
    (
        "inspect -f '{{.Config.ExposedPorts}} {{.Config.Healthcheck}} {{.HostConfig.PortBindings}}' web",
        Nothing,
    ),
    ("inspect -f '{{.SizeRw}}' web", Nothing),
    ("inspect -s -f '{{.SizeRw}}' web", Nothing),
    ("inspect -f '{{.State.StartedAt}} {{.Created}}' web", Nothing),
    ("inspect -f '{{len .Config.Env}} {{printf \"%q|%-10s|%v\" .Name .Name .State.Running}}' web", Nothing),
    (
        "inspect -f '{{if eq .State.Status \"running\"}}yes{{else if eq .State.Status \"exited\"}}no{{end}}' web",
        Nothing,
    ),
    ("inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' web", Nothing),
    ("inspect -f '{{.State.Health}}' web", Nothing),
    ("inspect -f '{{.State.Health.Status}}' web", Nothing),
    ("inspect -f '{{with .State}}{{.ExitCode}}{{end}}' done", Nothing),
    ("inspect -f '{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}' web", Nothing),
    ("inspect -f '{{range $i, $e := .Config.Cmd}}{{if $i}},{{end}}{{$e}}{{end}}' web", Nothing),
    (
        "inspect -f '{{join .Config.Cmd \" \"}} {{lower \"ABC\"}} {{upper \"abc\"}} {{title \"abc def\"}}' web",
        Nothing,
    ),
    (
        "inspect -f '{{split \"a:b\" \":\"}} {{truncate \"abcdef\" 3}} {{pad \"x\" 1 2}}|{{pad \"\" 1 2}}|' web",
        Nothing,
    ),
    ("inspect -f '{{println .Name}}{{print 1 2 \"a\"}}{{print true nil}}' web", Nothing),
    ("inspect -f '{{- .Name -}} ' web", Nothing),
    ("inspect -f '{{/* c */}}x {{slice .Id 0 12}}' web", Nothing),
    (
        "inspect -f '{{and .State.Running true}} {{or .State.Paused \"x\"}} {{not .State.Paused}}' web",
        Nothing,
    ),
    ("inspect -f '{{eq 1 1}} {{ne 1 2}} {{lt 1 2}} {{le 1 2}} {{gt 1 2}} {{ge 1 2}}' web", Nothing),
    ("inspect -f '{{html \"<a>\"}} {{js \"b\"}} {{urlquery \"a b\"}}' web", Nothing),
    ("inspect -f '{{range .Config.Cmd}}{{.}}{{break}}{{end}}' web", Nothing),
    ("inspect -f '{{$x := .Name}}{{$x}} {{$x = \"y\"}}{{$x}}' web", Nothing),
    ("inspect -f '{{define \"x\"}}D{{.}}{{end}}{{template \"x\" .Name}}' web", Nothing),
    ("inspect -f '{{template \"x\"}}' web", Nothing),
    ("inspect -f '{{bogus}}' web", Nothing),
    ("inspect -f '{{if}}' web", Nothing),
    ("inspect -f '{{end}}' web", Nothing),
    ("inspect -f '{{' web", Nothing),
    (
        "inspect -f '{{.RepoTags}} {{.RepoDigests}} {{.Size}} {{.Architecture}} {{.Os}} {{.Config.Cmd}}' busybox",
        Nothing,
    ),
    ("inspect -f '{{.NetworkSettings.Networks}}' web", Text("docker prints an address in its own memory")),
    ("top web", Nothing),
    ("top web aux", Nothing),
    ("top web -o pid,cmd", Text("the process numbers' column may be as wide as the kernel's largest")),
    ("top done", Nothing),
    ("top nope", Nothing),
    ("top", Nothing),
    ("logs done", Nothing),
    ("logs web", Nothing),
    ("logs term", Nothing),
    ("logs -t done", Nothing),
    ("logs --tail 0 done", Nothing),
    ("logs --tail 1 --details done", Nothing),
    ("logs --since 1h done", Nothing),
    ("logs --since bogus done", Nothing),
    ("logs --tail x done", All("docker takes any word for \"all\"; dewar says that it is no number")),
    ("logs nope", Nothing),
    ("logs", Nothing),
    ("port web", Nothing),
    ("port web 80", Nothing),
    ("port web 80/tcp", Nothing),
    ("port web x", Nothing),
    ("port web 99999", Nothing),
    ("port nope", Nothing),
    ("port", Nothing),
    ("container port web", Nothing),
    ("stats --no-stream --format '{{.Name}} {{.ID}} {{.Container}}' web", Nothing),
    ("stats --no-stream -a --format '{{.Name}} {{.MemUsage}}' done", Nothing),
    ("stats nope", Nothing),
    ("stats --no-stream nope", Nothing),
    ("stats --no-stream --format '{{.Nope}}' web", Words("docker words it as in no other listing")),
    ("events --since 1h --until 0s -f type=zzz", Nothing),
    ("events --since 1h --until 0s -f container=done -f event=die", Nothing),
    (
        "events --since 1h --until 0s -f container=done --format '{{.Type}} {{.Action}} {{.Actor.ID}}'",
        Nothing,
    ),
    ("events --since 1h --until 0s -f container=done -f event=die --format '{{json .}}'", Nothing),
    ("events --since 1h --until 0s -f container=done -f event=die --format json", Nothing),
    ("events --since bogus", Nothing),
    ("events x", Nothing),
    ("system events x", Nothing),
    ("wait done", Nothing),
    ("wait done nope", Nothing),
    ("wait", Nothing),
    ("version -f '{{.Server.Version}} {{.Server.APIVersion}} {{.Server.Os}}/{{.Server.Arch}}'", Nothing),
    ("version -f '{{.Client.Version}}'", Text(OWN_VERSION)),
    ("version -f '{{.Client.Nope}}'", Words("the type has another name")),
    ("version -f '{{'", Words("the template has another name")),
    ("version x", Nothing),
    ("version", Text(OWN_VERSION)),
    ("info -f '{{.ServerVersion}} {{.Driver}} {{.Containers}} {{.ClientInfo.Context}}'", Nothing),
    ("info -f '{{json .Plugins}} {{json .Swarm}} {{.SecurityOptions}}'", Nothing),
    ("info -f '{{.Nope}}'", Nothing),
    ("info", Text(OWN_VERSION)),
    ("system info -f '{{.ID}}'", Nothing),
    ("checkpoint ls web", Text("dewar shows age and size, too")),
    ("checkpoint ls nope", Nothing),
    ("context ls", Nothing),
    ("context ls -q", Nothing),
    ("context ls --format json", Nothing),
    ("context show", Nothing),
    ("context inspect -f '{{.Name}} {{.Endpoints.docker.Host}}'", Nothing),
    ("context inspect nope", Nothing),
    ("context use nope", Nothing),
    ("network ls", Nothing),
    ("network ls -q", Nothing),
    ("network ls --format '{{.Name}} {{.Driver}} {{.Scope}} {{.IPv6}}'", Nothing),
    ("network inspect none", Nothing),
    ("network inspect nope", Nothing),
    ("inspect --type network none", Nothing),
    ("inspect none", Nothing),
    ("inspect nope", Nothing),
    ("inspect nope web", Nothing),
    ("inspect -f '{{.Id}}' nope", Nothing),
    ("inspect --type volume nope", Nothing),
    ("inspect -f '{{.State}}' done", Nothing),
    ("images -f since=busybox -q", Nothing),
    ("image history -q busybox", Nothing),
    ("container logs done", Nothing),
    ("container top done", Nothing),
    ("container stats --no-stream nope", Nothing),
    ("system info -f '{{.NCPU}} {{.OSType}} {{.Architecture}}'", Nothing),
    ("diff web", Nothing),
    ("diff nope", Nothing),
    ("diff", Nothing),
    ("export nope", Nothing),
    ("export", Nothing),
    ("commit nope", Nothing),
    ("commit", Nothing),
    ("system df", Nothing),
    ("system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}'", Nothing),
    ("system df --format json", Nothing),
    ("container prune -x", Nothing),
    ("image prune -x", Nothing),
    ("system prune x", Nothing),
    ("volume prune x", Nothing),
    ("volume ls", Nothing),
    ("volume ls -q", Nothing),
    ("volume ls --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Mountpoint}}'", Nothing),
    ("volume inspect nope", Nothing),
    ("network ls --format json", Nothing),
];

/// What is refused before anything changes, and what changes nothing because it fails.
const REFUSED: &[(&str, But)] = &[
    ("network create", Nothing),
    ("network create a b", Nothing),
    ("network create host", Nothing),
    ("network create ''", Nothing),
    ("network create -d bogus x", Nothing),
    ("network create -d host x", Nothing),
    ("network create -d overlay x", Nothing),
    ("network create --ipam-driver bogus x", Nothing),
    ("network create --ipv4=false x", Nothing),
    ("network create --ipv4=x x", Nothing),
    ("network create --label =x x", Nothing),
    ("network create --scope swarm x", Nothing),
    ("network create --ingress x", All("dewar refuses the flag by name")),
    ("network create --gateway 10.0.0.1 x", Nothing),
    ("network create --subnet x x", Nothing),
    ("network create --subnet x --gateway 1.2.3.4 x", Nothing),
    ("network create --subnet 198.19.0.1/16 x", Nothing),
    ("network create --subnet 198.19.0.0/16 --gateway 11.0.0.1 x", Nothing),
    ("network create --subnet 198.19.0.0/16 --gateway 198.19.0.1/16 x", Nothing),
    ("network create --subnet 198.19.0.0/16 --gateway 198.19.0.0 x", Nothing),
    ("network create --subnet 198.19.0.0/16 --ip-range 198.19.0.0/33 x", Nothing),
    ("network create --subnet 198.19.0.0/16 --ip-range 198.19.0.9/24 x", Nothing),
    ("network create --subnet 198.19.0.0/16 --subnet 198.19.1.0/24 x", Nothing),
    ("network create --subnet 198.19.0.0/24 --subnet 198.19.1.0/24 x", Nothing),
    ("network create --subnet 198.19.0.0/16 --aux-address x x", Nothing),
    ("network create --ipv6 --subnet fe80::/48 x", Nothing),
    ("network create -o com.docker.network.driver.mtu=x x", Nothing),
    ("network create -o com.docker.network.bridge.enable_icc=x x", Nothing),
    ("network create -o com.docker.network.bridge.gateway_mode_ipv4=isolated x", Nothing),
    ("network create -d macvlan -o macvlan_mode=x x", Nothing),
    ("network create -d ipvlan -o parent=lo x", Nothing),
    ("network create --config-only --internal x", Nothing),
    ("network create --config-only --config-from y x", Nothing),
    ("network create --config-from nope x", Nothing),
    ("network create --config-from nope -o a=b x", Nothing),
    ("network rm", Nothing),
    ("network rm nope", Words(ADDS)),
    ("network rm -f nope", Nothing),
    ("network rm bridge", Words(ADDS)),
    ("network rm nope host nope2", Words(ADDS)),
    ("network rm ''", Words(ADDS)),
    ("network connect bridge", Nothing),
    ("network connect nope web", Nothing),
    ("network connect bridge nope", Nothing),
    ("network connect '' web", Nothing),
    ("network connect bridge ''", Nothing),
    ("network connect --driver-opt a bridge web", Nothing),
    ("network connect --gw-priority x bridge web", Nothing),
    ("network connect --link a:b:c bridge web", Nothing),
    ("network disconnect nope web", Nothing),
    ("network disconnect bridge nope", Nothing),
    ("network prune -x", Nothing),
    ("network prune -f --filter bogus=1", Nothing),
    ("network ls -f dangling=maybe", Nothing),
    ("network ls -f type=bogus", Nothing),
    ("network ls -f bogus=1", Nothing),
    ("run --network a,alias=x busybox true", Nothing),
    ("run --network alias=x busybox true", Nothing),
    ("run --network name=a,foo=b busybox true", Nothing),
    ("run --network name=a,driver-opt=b busybox true", Nothing),
    ("run --network name=a,gw-priority=x busybox true", Nothing),
    ("run --network name=a,mac-address=x busybox true", Nothing),
    ("run --network name=a,alias=x --network-alias y busybox true", Nothing),
    ("run --network name=a,ip=10.0.0.1 --ip 10.0.0.2 busybox true", Nothing),
    ("run --network a --network host busybox true", Nothing),
    ("run --network a --network a busybox true", Nothing),
    ("run --network-alias x busybox true", Nothing),
    ("run --network '' busybox true", Nothing),
    ("run --mac-address x busybox true", Nothing),
    ("run --link a:b:c busybox true", Nothing),
    ("run --network name=bridge,alias=x busybox true", Nothing),
    ("kill done", Nothing),
    ("kill nope", Nothing),
    ("kill -s BOGUS web", Nothing),
    ("kill", Nothing),
    ("stop nope", Nothing),
    ("stop nope nope2", Nothing),
    ("stop", Nothing),
    ("stop --time x web", Nothing),
    ("stop -t", Nothing),
    ("start nope", Nothing),
    ("start nope nope2", Nothing),
    ("start", Nothing),
    ("start -a nope", Nothing),
    ("start -a web done", Nothing),
    ("restart nope", Nothing),
    ("restart", Nothing),
    ("pause done", Nothing),
    ("pause nope", Nothing),
    ("unpause web", Nothing),
    ("rename", Nothing),
    ("rename nope x", Nothing),
    ("rename web web", Nothing),
    ("rename web done", Nothing),
    ("rm", Nothing),
    ("rm nope", Nothing),
    ("rm -f nope", Nothing),
    ("rm nope nope2", Nothing),
    ("rm web", Nothing),
    ("rmi nope", Nothing),
    ("rmi", Nothing),
    ("tag nope x", Nothing),
    ("tag a", Nothing),
    ("tag busybox UPPER", Nothing),
    ("exec", Nothing),
    ("exec web", Nothing),
    ("exec nope true", Nothing),
    ("exec done true", Nothing),
    ("exec --env-file /nope web true", Nothing),
    ("attach done", Nothing),
    ("attach nope", Nothing),
    ("attach", Nothing),
    ("cp", Nothing),
    ("cp web:/etc/passwd", Nothing),
    ("cp nope:/x /nonexistent/x", Nothing),
    ("cp /nope web:/tmp", Words("dewar names the attempt")),
    ("cp web:/a done:/b", Nothing),
    ("run", Nothing),
    ("run --bogus busybox", Words(SUGGESTS)),
    ("run nope", Nothing),
    ("run --pull never nope", Nothing),
    ("run -d -a stdout busybox true", Nothing),
    ("run --rm --restart always busybox true", Nothing),
    ("run --rm -m x busybox true", Nothing),
    ("run --rm --cpus x busybox true", Words(SAYS_WHAT_IT_EXPECTS)),
    ("run --rm -e = busybox true", Words(SAYS_WHAT_IT_EXPECTS)),
    ("run --rm --ulimit x busybox true", Words(SAYS_WHAT_IT_EXPECTS)),
    ("run --rm --mount type=bind busybox true", Nothing),
    ("run --rm -p x busybox true", Words(NAMES_THE_FLAG)),
    ("run --rm --device x busybox true", Words(NAMES_THE_FLAG)),
    ("run --rm --env-file /nope busybox true", Words(NAMES_THE_FLAG)),
    ("run --rm --pid bogus busybox true", Words(NAMES_THE_FLAG)),
    ("run --rm --uts bogus busybox true", Words(NAMES_THE_FLAG)),
    ("run --rm -it --network none busybox true", Nothing),
    ("run --rm --network none --name web busybox true", Nothing),
    ("create", Nothing),
    ("create nope", Nothing),
    ("create --bogus", Words(SUGGESTS)),
    ("import", Words("dewar does not take what it would ignore")),
    ("import /nope", Nothing),
    ("load", Nothing),
    ("load -i /nope", Nothing),
    ("save", Nothing),
    ("save nope", Nothing),
    ("pull", Nothing),
    ("pull busybox", Nothing),
    ("pull nope:1", Nothing),
    ("pull -a nope:1", Nothing),
    ("image pull -q nope", Nothing),
    ("push", Nothing),
    ("push busybox", Nothing),
    ("search", Nothing),
    ("search x", Nothing),
    ("checkpoint create web", Nothing),
    ("checkpoint rm web nope", Nothing),
    ("update", Nothing),
    ("update web", Nothing),
    ("update --memory x web", Nothing),
    ("update -m 100m nope", Nothing),
    ("update --restart bogus web", Nothing),
    ("update --restart on-failure:x web", Nothing),
];

/// What changes something: `@` tells the twins apart.
const CHANGING: &[(&str, But)] = &[
    ("run -d --name @_one --network none busybox sleep 1000", Nothing),
    ("run --name @_two --network none busybox sh -c 'echo out; echo err >&2; exit 7'", Nothing),
    ("run --rm --network none busybox sh -c 'exit 9'", Nothing),
    ("run --rm --network none busybox nope", Nothing),
    ("run --rm --network none busybox /etc/passwd", Nothing),
    ("run --rm --network none --entrypoint /nope busybox", Nothing),
    ("run --rm --network none -u nope busybox true", Nothing),
    ("run --rm --network none -w rel busybox true", Nothing),
    ("run --rm --network none -t busybox echo typed", Nothing),
    ("run --rm --network none --entrypoint echo -e A=b busybox x y", Nothing),
    ("create --name @_three --network none busybox sleep 1000", Nothing),
    ("container start @_three", Nothing),
    ("ps --format '{{.Names}} {{.State}}' -f name=@_three", Nothing),
    ("exec @_one true", Nothing),
    ("exec @_one sh -c 'echo in; exit 3'", Nothing),
    ("exec @_one nope", Nothing),
    ("exec @_one /etc/passwd", Nothing),
    ("exec -t @_one echo typed", Nothing),
    ("exec -e A=1 -w /tmp @_one sh -c 'echo $A; pwd'", Nothing),
    ("exec -u nope @_one true", Nothing),
    ("exec -d @_one true", Nothing),
    ("exec --privileged @_one true", Nothing),
    ("pause @_one", Nothing),
    ("ps --format '{{.State}} {{.Names}}' -f status=paused", Nothing),
    ("exec @_one true", Nothing),
    ("unpause @_one", Nothing),
    ("update --memory 64m --memory-swap 128m --pids-limit 50 @_one", Nothing),
    (
        "inspect -f '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}}' @_one",
        Nothing,
    ),
    ("update --restart on-failure:3 @_one @_three", Nothing),
    ("inspect -f '{{.HostConfig.RestartPolicy}}' @_one", Nothing),
    ("rename @_two @_four", Nothing),
    ("logs @_four", Nothing),
    ("start -a @_four", Nothing),
    ("stop -t 0 @_one", Nothing),
    ("stop -t 0 @_one", Nothing),
    ("inspect -f '{{.State.Status}} {{.State.ExitCode}}' @_one", Nothing),
    ("start @_one nope", Nothing),
    ("restart -t 0 @_one", Nothing),
    ("kill @_one @_three", Nothing),
    ("wait @_one @_four", Nothing),
    ("container rm @_four", Nothing),
    ("rm -fv @_one nope @_three", Nothing),
    ("tag busybox @_image:1", Nothing),
    // Without the age: between the two a second may pass, and what changes is not asked again.
    ("images --format 'table {{.Repository}}\\t{{.Tag}}\\t{{.Size}}' @_image", Nothing),
    ("inspect --type image -f '{{len .RepoTags}}' @_image:1", Nothing),
    ("rmi @_image:1", Nothing),
    ("rmi @_image:1", Nothing),
    ("run --name @_six --network none busybox sh -c 'echo x > /added; rm /etc/passwd'", Nothing),
    ("diff @_six", Nothing),
    ("commit -m 'a note' @_six @_made:1", Nothing),
    ("run --rm --network none @_made:1 cat /added", Nothing),
    ("image rm @_made:1", Words("each twin's image has an ID of its own")),
    ("rm @_six", Nothing),
    ("create --label t=@ --network none busybox true", Nothing),
    ("container prune -f --filter label=t=@", Nothing),
    ("image prune -f", Nothing),
    ("network create @_net", Nothing),
    ("network create @_net", Nothing),
    (
        "network create --internal --attachable --ipv6 --label t=@ -o com.docker.network.driver.mtu=1400 @_other",
        Nothing,
    ),
    ("network create --config-only --label t=@ --ipam-opt a=b @_plan", Nothing),
    ("network create --config-from @_plan @_copy", Nothing),
    (
        "network ls -f name=@_ --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.IPv4}} {{.IPv6}}'",
        Nothing,
    ),
    ("network ls -f label=t=@ -q --no-trunc", Nothing),
    ("network ls -f dangling=true -f name=@_ --format '{{.Name}} {{.Label \"u\"}}'", Nothing),
    (
        "network inspect -f '{{.Name}} {{.Internal}} {{.Attachable}} {{.EnableIPv6}} {{.Options}} {{.ConfigOnly}}' @_other @_plan",
        Nothing,
    ),
    (
        "network inspect -f '{{json .ConfigFrom}} {{json .IPAM.Options}} {{json .IPAM.Driver}}' @_copy",
        Nothing,
    ),
    ("network rm @_plan", Words(ADDS)),
    ("network rm @_copy", Nothing),
    ("network rm @_plan @_nope", Words(ADDS)),
    ("network prune -f --filter label=t=@", Nothing),
    ("network rm -f @_net", Nothing),
    ("network rm -f @_net", Nothing),
    ("volume create @_data", Nothing),
    ("volume create --label a=b @_more", Nothing),
    ("volume ls -q -f name=@_data", Nothing),
    ("volume inspect -f '{{.Name}} {{.Driver}} {{.Labels}} {{.Scope}}' @_more", Nothing),
    ("run --rm --network none -v @_data:/d busybox sh -c 'echo x > /d/f; cat /d/f'", Nothing),
    ("volume rm @_data nope @_more", Nothing),
    ("container run -d --rm --name @_five --network none busybox sleep 1000", Nothing),
    ("container rm -f @_five", Nothing),
];

/// Without a daemon.
const NOBODY: &[(&str, But)] = &[
    ("ps", Nothing),
    ("run busybox", Nothing),
    ("exec web true", Nothing),
    ("create busybox", Nothing),
    ("rm a b", Nothing),
    ("stop a b", Nothing),
    ("start a", Nothing),
    ("inspect a", Nothing),
    ("images", Nothing),
    ("logs a", Nothing),
    ("stats", Nothing),
    ("port a", Nothing),
    ("update -m 1g a", Nothing),
    ("info", Text(OWN_VERSION)),
    ("info -f '{{.ServerVersion}}'", Nothing),
    ("version", Text(OWN_VERSION)),
];

/// Words of a line; single quotes keep blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => {
                let mut parts = part.split(' ');
                // What follows a quote without a blank belongs to the same word.
                if at > 0
                    && !part.starts_with(' ')
                    && let (Some(first), Some(last)) = (parts.next(), words.last_mut())
                {
                    let last: &mut String = last;
                    last.push_str(first);
                }
                words.extend(parts.filter(|word| !word.is_empty()).map(str::to_owned));
            }
            _ if line.split('\'').nth(at - 1).is_some_and(|before| before.ends_with('=')) => {
                words.last_mut().expect("a word ends in =").push_str(part);
            }
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// IDs are each container's own, and so are the names of twins; the program's name is each program's own.
fn normal(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_digit() || ('a'..='f').contains(&c) {
            run.push(c);
            continue;
        }
        match run.len() {
            64 => out.push_str("ID"),
            _ => out.push_str(&run),
        }
        run.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out.replace("w_", "d_").replace("dewar", "docker")
}

fn differ(docker: &Output, dewar: &Output, but: But) -> bool {
    let code = docker.code != dewar.code;
    let stdout = normal(&docker.stdout) != normal(&dewar.stdout);
    let stderr = normal(&docker.stderr) != normal(&dewar.stderr);
    match but {
        Nothing => code || stdout || stderr,
        Words(_) => code || stdout || docker.stderr.is_empty() != dewar.stderr.is_empty(),
        Text(_) => code,
        All(_) => false,
    }
}

fn compare(lines: &[(&str, But)], run: impl Fn(&str, Vec<String>) -> Output, may_repeat: bool) {
    let mut failures = Vec::new();
    for (line, but) in lines {
        let both = || {
            let docker = run("docker", words(&line.replace('@', "d")));
            let dewar = run("dewar", words(&line.replace('@', "w")));
            (docker, dewar)
        };
        let mut outputs = both();
        // Between the two a second may pass, and "Up 2 seconds" with it.
        for _ in 0..3 {
            if !may_repeat || !differ(&outputs.0, &outputs.1, *but) {
                break;
            }
            outputs = both();
        }
        outputs.1.no_panic();
        if differ(&outputs.0, &outputs.1, *but) {
            failures.push(format!("===== {line} ({but:?})\n{}\n{}", outputs.0, outputs.1));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} lines differ:\n{}",
        failures.len(),
        lines.len(),
        failures.join("\n")
    );
}

fn populated() -> Daemon {
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-l", "a=b", "-l", "c=d"], "exec sleep 1000");
    daemon.run(&[], "true").ok();
    daemon
        .dewar(&["run", "--name", "done", "--network", "none", "busybox", "sh", "-c", "echo hi; exit 3"])
        .fails(3);
    let new = [
        "create",
        "--name",
        "new",
        "-v",
        "/tmp:/data:ro",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "long",
    ];
    daemon.dewar(&new).ok();
    daemon.run_detached("term", &["-t"], "echo hi; exec sleep 1000");
    daemon.run_detached("held", &[], "exec sleep 1000");
    daemon.dewar(&["pause", "held"]).ok();
    eventually("the terminal's line", || daemon.logs("term").contains("hi"));
    daemon
}

fn on<'a>(daemon: &'a Daemon) -> impl Fn(&str, Vec<String>) -> Output + 'a {
    |program, words| match program {
        "docker" => daemon.docker(&words).run(),
        // docker 28.2 speaks 1.50 at most, and each version has its own shapes.
        _ => daemon
            .dewar(&words)
            .env("DOCKER_CONFIG", daemon.dir().join("docker-config"))
            .env("DOCKER_API_VERSION", "1.50")
            .run(),
    }
}

#[test]
fn what_is_read_reads_the_same() {
    requires!(root, docker);
    let daemon = populated();
    compare(READING, on(&daemon), true);
}

#[test]
fn what_is_refused_is_refused_alike() {
    requires!(root, docker);
    let daemon = populated();
    compare(REFUSED, on(&daemon), true);
}

#[test]
fn what_is_changed_changes_alike() {
    requires!(root, docker);
    let daemon = Daemon::start();
    compare(CHANGING, on(&daemon), false);
}

#[test]
fn nobody_there_is_said_alike() {
    requires!(docker);
    let docker = crate::support::requires::docker_path().expect("required above");
    let run = |program: &str, words: Vec<String>| {
        let command = if program == "docker" { Cmd::new(&docker) } else { Cmd::new(binary()) };
        command
            .env("DOCKER_CONFIG", "/nonexistent")
            .args(["-H", "unix:///nonexistent/x.sock"])
            .args(words)
            .run()
    };
    compare(NOBODY, run, false);
}

#[test]
fn the_table_is_wide() {
    let lines: usize = [READING, REFUSED, CHANGING, NOBODY].iter().map(|table| table.len()).sum();
    let apart =
        [READING, REFUSED, CHANGING, NOBODY].concat().iter().filter(|(_, but)| *but != Nothing).count();
    println!("{lines} lines are compared; {apart} differ in their words, on purpose");
    assert!(lines >= 300 && apart * 10 <= lines, "{apart} of {lines} differ");
    assert_eq!(words("a 'b c' d='e f' g"), ["a", "b c", "d=e f", "g"]);
}
