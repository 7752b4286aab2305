"""How a report looks: its style sheet, light, dark and on paper."""

STYLE = """
:root { --ground:#fbfbfa; --card:#fff; --ink:#1c2127; --mute:#68717c; --line:#e4e7ea; --soft:#f1f3f4;
  --bytes:#2f6fb0; --packets:#2b8a7b; --bad:#c23b2e; --good:#2c7a4b; --pin:#c98a1b; --void:#eceeef; }
@media (prefers-color-scheme: dark) { :root { --ground:#14171a; --card:#1b1f24; --ink:#e4e7ea; --mute:#939da8;
  --line:#2d333a; --soft:#22272d; --bytes:#6aa5e0; --packets:#5cbcab; --bad:#ee7467; --good:#6cc08e; --pin:#e3ad4b;
  --void:#24292f; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--ground); color:var(--ink); font:14px/1.45 system-ui,"Liberation Sans",sans-serif;
  font-variant-numeric:tabular-nums; }
header,main { max-width:1080px; margin:0 auto; padding:0 24px; }
header { padding-top:36px; }
h1 { font-size:26px; line-height:1.2; margin:0 0 4px; letter-spacing:-.01em; }
h2 { font-size:17px; margin:0; }
h3 { font-size:14px; margin:18px 0 6px; }
p { margin:0; }
i { font-style:normal; color:var(--mute); font-size:12px; }
.mute,.note,.none { color:var(--mute); }
.note { font-size:12px; margin-top:8px; }
.bad { color:var(--bad); }
.good { color:var(--good); }
section { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:20px 22px; margin:18px 0; }
.head { display:flex; justify-content:space-between; align-items:baseline; gap:16px; flex-wrap:wrap;
  margin-bottom:12px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin:22px 0 0; }
.tile { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:14px 16px; }
.tile b { display:block; font-size:21px; font-weight:600; line-height:1.25; color:inherit; white-space:nowrap; }
.tile span { display:block; }
.tile i { display:block; }
.tile.bad b { color:var(--bad); }
.tile.good b { color:var(--good); }
.legend { color:var(--mute); font-size:12px; display:flex; gap:6px; align-items:center; flex-wrap:wrap; }
.legend .key { width:12px; height:10px; border-radius:2px; margin-left:10px; }
.legend span:last-child:not(.key) { margin-left:10px; }
.key.bytes { background:var(--bytes); } .key.packets { background:var(--packets); }
  .key.drop { background:var(--bad); }
.key.held { background:var(--bytes); } .key.asked { background:var(--bytes); opacity:.25; }
  .key.pin { background:var(--pin); }
figure { margin:0 0 14px; break-inside:avoid; }
figure + figure { border-top:1px solid var(--line); padding-top:14px; }
figcaption { display:flex; justify-content:space-between; align-items:baseline; gap:16px; flex-wrap:wrap;
  margin-bottom:4px; }
figcaption h3 { margin:0; } figcaption h3 span { font-weight:400; }
figcaption p { color:var(--mute); font-size:12px; }
.pair,.grid2 { display:grid; grid-template-columns:1fr 1fr; gap:8px 24px; }
.grid2 { gap:22px 32px; }
.grid2 > div { min-width:0; }
svg { width:100%; height:auto; display:block; }
svg text { font-size:10.5px; fill:var(--mute); }
svg .grid { stroke:var(--line); stroke-width:1; } svg .tick { stroke:var(--mute); stroke-width:1; }
svg .area { opacity:.16; } svg .line { fill:none; stroke-width:1.4; stroke-linejoin:round; }
svg .area.bytes { fill:var(--bytes); } svg .line.bytes { stroke:var(--bytes); }
svg .area.packets { fill:var(--packets); } svg .line.packets { stroke:var(--packets); }
svg .drop { fill:var(--bad); opacity:.14; } svg .lost { fill:var(--bad); } svg .void { fill:var(--void); }
  svg .note { font-size:11px; }
.wide { overflow-x:auto; }
table { border-collapse:collapse; width:100%; }
th { text-align:left; font-weight:500; font-size:12px; color:var(--mute); border-bottom:1px solid var(--line);
  padding:4px 12px 5px 0; white-space:nowrap; }
.ranking th:first-child { font-size:14px; font-weight:600; color:var(--ink); }
td { padding:6px 12px 6px 0; border-bottom:1px solid var(--soft); vertical-align:top; overflow-wrap:anywhere; }
tr:last-child td { border-bottom:0; }
th:last-child,td:last-child { padding-right:0; }
th.n + th:not(.n),td.n + td:not(.n) { padding-left:14px; }
.n { text-align:right; white-space:nowrap; }
td i { display:block; line-height:1.35; }
.name { font-family:ui-monospace,"DejaVu Sans Mono","Liberation Mono",monospace; font-size:12.5px; }
.name i,td .name + i { font-family:inherit; } .ranking .name i { display:inline; font-family:system-ui,sans-serif; }
.code { font-family:ui-monospace,"DejaVu Sans Mono",monospace; }
.ranking td:nth-child(2) { width:22%; }
.bar { display:block; height:9px; margin-top:6px; background:var(--soft); border-radius:2px; overflow:hidden;
  min-width:50px; }
.bar span { display:block; height:100%; background:var(--bytes); border-radius:2px; }
.retention td { white-space:nowrap; } .retention td:nth-child(2) { width:46%; }
  .retention td:nth-child(5) { min-width:130px; }
.time { position:relative; height:16px; margin-top:3px; background:var(--soft); border-radius:2px; overflow:hidden; }
.time span { position:absolute; top:0; bottom:0; }
.time .held { background:var(--bytes); top:5px; bottom:5px; border-radius:2px; }
.time .asked { background:var(--bytes); opacity:.25; }
.time .pin { background:var(--pin); top:11px; bottom:0; }
.axis { position:relative; height:16px; font-size:11px; color:var(--mute); }
.axis span { position:absolute; transform:translateX(-50%); }
ul { margin:0; padding-left:18px; color:var(--mute); } li { margin:4px 0; }
@media (max-width:760px) { .pair,.grid2 { grid-template-columns:1fr; } header,main { padding:0 12px; } }
@media print { :root { --ground:#fff; --card:#fff; --ink:#000; --mute:#444; --line:#bbb; --soft:#eee; --bytes:#2f6fb0;
  --packets:#2b8a7b; --bad:#b02a1e; --good:#1f6b3c; --pin:#b47a10; --void:#eee; }
  body { font-size:11px; } header,main { max-width:none; padding:0; } tr,.tile { break-inside:avoid; }
  section { border:0; border-top:1px solid var(--line); border-radius:0; padding:12px 0; }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact; } }
"""
