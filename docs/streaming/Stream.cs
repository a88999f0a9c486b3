// Reads a stream of a Tidegate gateway: Unity 2021+, .NET 6+ or Mono. One file, no package.
//
//     var stream = new TidegateStream(http, "http://127.0.0.1:8080/v1/inference:stream", "{\"prompt\":\"Hello\"}");
//     await stream.Read((id, json) => Debug.Log(json), cancel);
using System;
using System.Globalization;
using System.IO;
using System.Net.Http;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;
using System.Threading.Tasks;

/// <summary>How a stream failed: the HTTP status, 200 where it had begun, and the error's JSON.</summary>
public sealed class TidegateException : Exception
{
    public readonly int Status;
    public readonly string Body;

    public TidegateException(int status, string body) : base(body) { Status = status; Body = body; }
}

public sealed class TidegateStream
{
    readonly HttpClient http;
    readonly string url;
    readonly string body;

    /// <summary>The place in the stream: of the last chunk read, to go on behind it.</summary>
    public string LastEventId { get; private set; }

    /// <summary>How long to wait before the next connection, as the gateway asks.</summary>
    public TimeSpan Retry { get; private set; } = TimeSpan.FromSeconds(2);

    /// <summary>What ended the stream: `null` for its last chunk, else `draining`, `reloaded`, `revoked`.</summary>
    public string EndReason { get; private set; }

    /// <summary>Longest time without a line, where the gateway sends one every 15 s: then the connection is broken.</summary>
    public TimeSpan Silence { get; set; } = TimeSpan.FromSeconds(45);

    /// <param name="http">Its `Timeout` is how long the first chunk may take: no header comes before it.</param>
    /// <param name="body">JSON of a POST; null for a GET.</param>
    public TidegateStream(HttpClient http, string url, string body)
    {
        this.http = http;
        this.url = url;
        this.body = body;
    }

    /// <summary>
    /// Reads to the end of one connection. `onChunk` gets the id and the JSON of each chunk. Throws TidegateException for
    /// an error of the gateway or the worker, IOException where there is no connection or it broke, and
    /// OperationCanceledException where `cancel` says so.
    /// </summary>
    public async Task Read(Action<string, string> onChunk, CancellationToken cancel)
    {
        EndReason = null;
        // Ends a read that waits for a line: by the caller, or after too long a silence.
        using (var broken = CancellationTokenSource.CreateLinkedTokenSource(cancel))
        {
            try
            {
                using (var request = Request())
                using (var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, broken.Token))
                using (broken.Token.Register(response.Dispose))
                {
                    var status = (int)response.StatusCode;
                    if (status == 204) return; // resumed behind the last chunk: nothing is left
                    if (status != 200) throw new TidegateException(status, await response.Content.ReadAsStringAsync());
                    using (var lines = new StreamReader(await response.Content.ReadAsStreamAsync(), Encoding.UTF8))
                        await ReadEvents(lines, onChunk, broken);
                }
            }
            catch (TidegateException)
            {
                throw;
            }
            catch (Exception error) when (cancel.IsCancellationRequested)
            {
                throw new OperationCanceledException(error.Message, error, cancel);
            }
            catch (Exception error) when (broken.IsCancellationRequested || error is HttpRequestException || error is OperationCanceledException)
            {
                throw new IOException(broken.IsCancellationRequested ? "no line for " + Silence : error.Message, error);
            }
        }
    }

    HttpRequestMessage Request()
    {
        var request = new HttpRequestMessage(body == null ? HttpMethod.Get : HttpMethod.Post, url);
        request.Headers.TryAddWithoutValidation("Accept", "text/event-stream");
        if (LastEventId != null) request.Headers.TryAddWithoutValidation("Last-Event-ID", LastEventId);
        if (body != null) request.Content = new StringContent(body, Encoding.UTF8, "application/json");
        return request;
    }

    async Task ReadEvents(StreamReader lines, Action<string, string> onChunk, CancellationTokenSource broken)
    {
        string kind = "", id = null;
        var data = new StringBuilder();
        while (true)
        {
            broken.CancelAfter(Silence);
            var line = await lines.ReadLineAsync();
            broken.Token.ThrowIfCancellationRequested();
            if (line == null) return;
            if (line.Length == 0)
            {
                if (kind == "error") throw new TidegateException(200, data.ToString());
                if (kind == "end") { EndReason = Reason(data.ToString()); return; }
                if (data.Length > 0) { LastEventId = id ?? LastEventId; onChunk(LastEventId, data.ToString()); }
                kind = "";
                data.Clear();
                continue;
            }
            if (line[0] == ':') continue; // a comment: the connection is alive
            var colon = line.IndexOf(':');
            var field = colon < 0 ? line : line.Substring(0, colon);
            var value = colon < 0 ? "" : line.Substring(colon + 1);
            if (value.StartsWith(" ", StringComparison.Ordinal)) value = value.Substring(1);
            if (field == "data") data.Append(data.Length > 0 ? "\n" : "").Append(value);
            else if (field == "event") kind = value;
            else if (field == "id") id = value;
            else if (field == "retry") Retry = Milliseconds(value, Retry);
        }
    }

    static TimeSpan Milliseconds(string text, TimeSpan otherwise)
    {
        int number;
        var isNumber = int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
        return isNumber ? TimeSpan.FromMilliseconds(number) : otherwise;
    }

    /// <summary>The reason in `{"reason":"draining"}`.</summary>
    static string Reason(string json) { return Regex.Match(json, "\"reason\":\"([^\"]*)\"").Groups[1].Value; }
}
