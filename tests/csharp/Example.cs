// docs/streaming/Stream.cs at work, for tests/csharp.rs: says on standard output what it reads, ends at a line of input.
// `read URL SILENCE_MS [BODY]`, `twice URL SILENCE_MS [BODY]`, or `follow`: the loop of docs/streaming.md.
using System;
using System.IO;
using System.Net.Http;
using System.Threading;
using System.Threading.Tasks;

static partial class Example
{
    static readonly HttpClient http = new HttpClient();

    static int Main(string[] arguments)
    {
        var cancel = new CancellationTokenSource();
        new Thread(() => { Console.In.ReadLine(); cancel.Cancel(); }) { IsBackground = true }.Start();
        if (arguments[0] == "follow") { Ended(Follow(cancel.Token)); return 0; }
        var stream = new TidegateStream(http, arguments[1], arguments.Length > 3 ? arguments[3] : null);
        stream.Silence = TimeSpan.FromMilliseconds(int.Parse(arguments[2]));
        for (var times = arguments[0] == "twice" ? 2 : 1; times > 0; times--)
        {
            Ended(stream.Read((id, json) => Say("chunk " + id + " " + json), cancel.Token));
            Say("at " + stream.LastEventId + " " + (stream.EndReason ?? "null") + " " + stream.Retry.TotalMilliseconds);
        }
        return 0;
    }

    static void Apply(string json) { Say("chunk " + json); }

    static void Say(string line) { Console.WriteLine(line); Console.Out.Flush(); }

    static void Ended(Task reading)
    {
        try { reading.GetAwaiter().GetResult(); Say("ended"); }
        catch (TidegateException error) { Say("error " + error.Status + " " + error.Body); }
        catch (IOException error) { Say("broken: " + error.Message); }
        catch (OperationCanceledException) { Say("cancelled"); }
    }
}
