use super::*;
use crate::cli::format::Row;
use crate::cli::format::value::Field;

/// An object as `inspect` sees one: fields in order, some of them left out.
fn object() -> Value {
    let json = |value: serde_json::Value| Value::from_json(&value);
    let field = |name: &str, value: Value| Field { name: name.to_owned(), value, shown: true };
    let hidden = |name: &str| Field { name: name.to_owned(), value: Value::zero_of(name), shown: false };
    Value::Struct(vec![
        field("Id", json("0123456789abcdef".into())),
        field("Name", json("/web".into())),
        field("Count", json(3.into())),
        field("Empty", json("".into())),
        field("Binds", Value::null_of("Binds")),
        field(
            "State",
            Value::Struct(vec![
                field("Running", Value::Bool(true)),
                field("Pid", Value::Int(42)),
                hidden("Health"),
            ]),
        ),
        field("List", json(serde_json::json!(["a", "b"]))),
        field("Map", json(serde_json::json!({"x.y": "1", "z": "2"}))),
        field("Ports", json(serde_json::json!({"80/tcp": [{"HostPort": "8080"}], "90/tcp": null}))),
        field("Big", json(5_000_000_000_u64.into())),
    ])
}

fn render(template: &str) -> Result<String, String> {
    Template::parse(template)?.render(&object())
}

#[test]
fn templates_print_what_go_prints() {
    let cases = [
        ("plain", "plain"),
        ("{{.Name}} {{ .State.Pid }}", "/web 42"),
        ("{{json .State}}", r#"{"Running":true,"Pid":42}"#),
        ("{{.List}} {{.State}} {{.Binds}} {{.Big}}", "[a b] {true 42 <nil>} [] 5000000000"),
        ("{{.Map}} {{.Map.z}} {{.Map.nope}}", "map[x.y:1 z:2] 2 <no value>"),
        ("{{.ID}} {{.id}}", "0123456789abcdef 0123456789abcdef"),
        ("{{index .Map \"x.y\"}}{{index .Map \"no\"}}{{index .List 1}}", "1b"),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
        ("{{with index .Ports \"80/tcp\"}}{{(index . 0).HostPort}}{{end}}", "8080"),
        (
            "{{range $p, $b := .Ports}}{{$p}}={{if $b}}{{(index $b 0).HostPort}}{{end}} {{end}}",
            "80/tcp=8080 90/tcp= ",
        ),
        ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $e := .List}}{{if $i}},{{end}}{{$e}}{{end}}", "a,b"),
        ("{{range $x := .List}}{{$x}}{{end}}", "ab"),
        ("{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", "x.y=1;z=2;"),
        ("{{range .Binds}}x{{else}}none{{end}}", "none"),
        ("{{range .List}}{{.}}{{break}}{{end}}|{{range .List}}{{continue}}x{{end}}", "a|"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{.State.Health}}", "<nil>"),
        ("{{if .Empty}}a{{else if eq .Name \"/web\"}}b{{else}}c{{end}}", "b"),
        ("{{with .Empty}}a{{else with .Name}}{{.}}{{end}}", "/web"),
        ("{{with .State}}{{.Pid}} {{$.Name}}{{end}}", "42 /web"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "/web"),
        ("{{join .List \", \"}} {{upper .Name}} {{len .List}} {{title \"ab cd\"}}", "a, b /WEB 2 Ab Cd"),
        ("{{.Name | upper | printf \"%8s|\"}}", "    /WEB|"),
        ("{{printf \"%-6s|%d%%|%05d|%q|%v\" .Name .Count 42 \"a\" .List}}", "/web  |3%|00042|\"a\"|[a b]"),
        ("{{printf \"%d %s\" \"x\"}}", "%!d(string=x) %!s(MISSING)"),
        ("{{printf \"%.3s|%x|%t\" .Id 255 true}}", "012|ff|true"),
        ("{{print 1 2}} {{print \"a\" \"b\"}} {{println 1 \"a\"}}", "1 2 ab 1 a\n"),
        ("{{if and .Name (not .Empty)}}y{{end}}", "y"),
        ("{{and .State.Running \"x\"}} {{or .Empty \"z\"}} {{and .Empty .Nope}}", "x z "),
        ("{{if gt .Count 2}}y{{end}}{{if ne .Name \"x\"}}z{{end}}", "yz"),
        ("{{eq .Count 1 3}} {{lt 1 2}} {{le \"a\" \"b\"}}", "true true true"),
        ("a {{- .Count -}} b", "a3b"),
        ("a {{- /* note */ -}} b{{/* }} */}}c", "abc"),
        ("{{$x := .Count}}{{$x}}", "3"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{range split .Name \"w\"}}[{{.}}]{{end}}", "[/][eb]"),
        ("{{\"}}\"}}{{`\\n`}}{{'a'}}", "}}\\n97"),
        ("{{slice .Id 0 4}} {{truncate .Id 2}} {{pad \"x\" 1 2}}|{{pad \"\" 1 2}}|", "0123 01  x  ||"),
        ("{{html \"<a>\"}} {{js \"a\\\"b\"}} {{urlquery \"a b/\"}}", "&lt;a&gt; a\\\"b a+b%2F"),
        (
            "{{define \"x\"}}D{{.}}{{end}}{{template \"x\" .Name}}{{block \"y\" .Count}}B{{.}}{{end}}",
            "D/webB3",
        ),
        ("{{1.5}} {{true}} {{0x10}}", "1.5 true 16"),
    ];
    for (template, text) in cases {
        assert_eq!(render(template).as_deref(), Ok(text), "{template}");
    }
}

#[test]
fn mistakes_are_worded_as_go_words_them() {
    let cases = [
        ("{{.Nope}}", "template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\""),
        (
            "{{.State.Nope}}",
            "template: :1:8: executing \"\" at <.State.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{.State.Health.X}}",
            "template: :1:8: executing \"\" at <.State.Health.X>: map has no entry for key \"Health\"",
        ),
        (
            "{{.Name.X}}",
            "template: :1:7: executing \"\" at <.Name.X>: can't evaluate field X in type interface {}",
        ),
        ("\n{{.Nope}}", "template: :2:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\""),
        (
            "{{(index (index .Ports \"90/tcp\") 0).X}}",
            "template: :1:3: executing \"\" at <index (index .Ports \"90/tcp\") 0>: error calling index: index of untyped nil",
        ),
        (
            "{{template \"x\"}}",
            "template: :1:11: executing \"\" at <{{template \"x\"}}>: template \"x\" not defined",
        ),
        ("{{bogus}}", "template: :1: function \"bogus\" not defined"),
        ("{{if}}", "template: :1: missing value for if"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{", "template: :1: unclosed action"),
        ("{{.Name", "template: :1: unclosed action"),
        ("{{if .Name}}x", "template: :1: unexpected EOF"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
    ];
    for (template, words) in cases {
        assert_eq!(render(template).unwrap_err(), words, "{template}");
    }
    for template in [
        "{{(.Name}}",
        "{{.Name)}}",
        "{{index .List 9}}",
        "{{range .Name}}{{end}}",
        "{{.Name .Count}}",
        "{{$x}}",
        "{{pad .Name 99999999 0}}",
        "{{eq 1 \"1\"}}",
        "{{\"a}}",
        "{{len .Count}}",
        "{{/* }}",
        "{{$x = 1}}",
        "{{#}}",
        "{{define \"r\"}}{{template \"r\"}}{{end}}{{template \"r\"}}",
        "{{.Name |}}",
        "{{slice .Id 9 1}}",
    ] {
        assert!(render(template).is_err(), "{template}");
    }
}

#[test]
fn rows_have_methods_and_a_type() {
    let mut row = Row::new();
    row.insert("Label".into(), "k=v".into());
    row.insert(" Label".into(), serde_json::json!({"k": "v"}));
    row.insert(" type".into(), "*formatter.ContainerContext".into());
    let render = |text: &str| Template::parse(text).and_then(|template| template.render(&Value::row(&row)));
    assert_eq!(render("{{.Label \"k\"}}{{.Label \"no\"}}|{{.Label}}").as_deref(), Ok("v|k=v"));
    assert_eq!(render("{{json .}}").as_deref(), Ok("{\"Label\":\"k=v\"}"));
    assert_eq!(
        render("{{.Nope}}").unwrap_err(),
        "template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *formatter.ContainerContext"
    );
}

#[test]
fn depth_is_bounded() {
    let deep = "{{if .Name}}".repeat(1000) + &"{{end}}".repeat(1000);
    assert!(Template::parse(&deep).is_err());
    let deep = format!("{{{{{}.{}}}}}", "(".repeat(1000), ")".repeat(1000));
    assert!(Template::parse(&deep).is_err());
    let chain = "{{if .Empty}}".to_owned() + &"{{else if .Empty}}".repeat(1000) + "{{end}}";
    assert!(Template::parse(&chain).is_err());
}
